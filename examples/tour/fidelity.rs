//! The first half of the notebook: how many features fire on a token, what the model loses when it reads the reconstruction, and what it says of a prompt
//! with and without the SAE.

use super::common::out::print_line;
use super::common::{Outcome, Setup, row_bar};
use super::{Args, cell};
use saescope::activation_store::TokenFilter;
use saescope::feature_analysis::evals::{Bootstrap, EvalOptions, Evaluation, evaluate_store};
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Align, HistogramOptions, Table, histogram, visible_token};
use saescope::model_hooks::{NoTap, PositionReport, PromptReport, Tap, test_prompt_tokens};
use saescope::sae_core::SparseCoder;
use saescope::sae_hooks::{HookedSae, Splice};

/// The rows of tokens that the notebook looks at first.
const ROWS: u64 = 32;

/// All three cells.
pub fn fidelity(args: &Args, setup: &Setup, page: &mut Page) -> Outcome {
    active_features(setup, page)?;
    losses(setup, page)?;
    prompt(args, setup, page)
}

/// L0 of every token but the first of each row.
fn active_features(setup: &Setup, page: &mut Page) -> Outcome {
    cell("", "How many features fire on a token");
    let (mut store, mut l0, mut rows) = (setup.store()?, Vec::new(), 0);
    while let Some(batch) = store.get_batch_tokens()?.filter(|_| rows < ROWS) {
        let codes = setup.sae.encode(&store.activations(&batch)?)?;
        let positions = codes.features.rows() / batch.len();
        let active = codes.features.iter().enumerate().filter(|(i, _)| i % positions > 0);
        l0.extend(active.map(|(_, (_, values))| values.iter().filter(|v| **v != 0.0).count() as f32));
        rows += batch.len() as u64;
    }
    if l0.is_empty() {
        return Ok(());
    }
    let mean = l0.iter().map(|l0| f64::from(*l0)).sum::<f64>() / l0.len() as f64;
    let words = format!("average l0 {mean:.2}; {} tokens in {rows} rows, the first of each row left out", l0.len());
    print_line(&words);
    let options = HistogramOptions {
        title: "L0: features that fire on a token".into(),
        subtitle: Some(words),
        x_label: "features".into(),
        y_label: "tokens".into(),
        ..HistogramOptions::default()
    };
    page.section(Section::new("l0", "How many features fire on a token").figure(histogram(&l0, &options)));
    Ok(())
}

/// The model's loss as it is, with the reconstruction, and with zeros at the hook.
fn losses(setup: &Setup, page: &mut Page) -> Outcome {
    cell("", "What the model loses with the SAE");
    let options = EvalOptions {
        rows: Some(ROWS),
        // The notebook replaces the activation of every token and counts them all.
        filter: TokenFilter::everything(),
        mean_ablation: false,
        bootstrap: Bootstrap { resamples: 0, ..Bootstrap::default() },
        ..EvalOptions::default()
    };
    let bar = row_bar(ROWS);
    bar.set_message("losses");
    let found = evaluate_store(&setup.sae, &mut setup.store()?, &options, &mut |p| bar.set_position(p.rows_done))?;
    bar.finish_and_clear();
    let mut table = Table::new([("next-token loss", Align::Left), ("nats", Align::Right)]);
    for (name, key) in [
        ("original", "ce_loss_without_sae"),
        ("with the reconstruction", "ce_loss_with_sae"),
        ("with zeros", "ce_loss_with_ablation"),
    ] {
        table.row([name.to_owned(), format!("{:.4}", value(&found, key)?)]);
    }
    let words = format!(
        "The SAE keeps {:.1}% of what zeros lose, and explains {:.1}% of the variance. {}. `evaluate_sae` tells more.",
        100.0 * value(&found, "ce_loss_score")?,
        100.0 * value(&found, "explained_variance")?,
        found.describe(),
    );
    print_line(format_args!("{table}{words}"));
    page.section(Section::new("losses", "What the model loses with the SAE").text(words).table(&table));
    Ok(())
}

fn value(found: &Evaluation, key: &str) -> Outcome<f64> {
    Ok(found.value(key).ok_or_else(|| format!("the evaluation has no metric `{key}`"))?)
}

/// What the model says next, without and with the SAE.
fn prompt(args: &Args, setup: &Setup, page: &mut Page) -> Outcome {
    cell("", "A prompt, without the SAE and with it");
    let tokenizer = setup.model.try_tokenizer()?;
    let prompt = tokenizer.to_tokens(&args.prompt, setup.bos(), None)?.ids;
    let ask = |answer: &[&[u32]], tap: &mut dyn Tap| -> Outcome<PromptReport> {
        Ok(test_prompt_tokens(&setup.model, &prompt, answer, 10, tap)?)
    };
    let answer = match &args.answer {
        // Words inside a sentence begin with a space.
        Some(answer) if answer.starts_with(' ') => tokenizer.encode(answer)?.ids,
        Some(answer) => tokenizer.encode(&format!(" {answer}"))?.ids,
        None => first(&ask(&[], &mut NoTap)?)?.top.iter().take(1).map(|top| top.token).collect(),
    };
    let plain = ask(&[&answer], &mut NoTap)?;
    let with_sae = ask(
        &[&answer],
        &mut Splice::new(setup.model.hooked()).with(HookedSae::from_metadata_in(setup.model.hooked(), &setup.sae)?)?,
    )?;
    let (plain, with_sae) = (first(&plain)?, first(&with_sae)?);
    let mut table = Table::new([
        ("rank", Align::Right),
        ("without the SAE", Align::Left),
        ("logit", Align::Right),
        ("probability", Align::Right),
        ("with the SAE", Align::Left),
        ("logit", Align::Right),
        ("probability", Align::Right),
    ]);
    for (a, b) in plain.top.iter().zip(&with_sae.top) {
        let cells = [a, b].map(|p| [visible_token(&p.text), format!("{:.2}", p.logit), percent(p.probability)]);
        table.row([vec![a.rank.to_string()], cells.concat()].concat());
    }
    let mut words = String::new();
    if let (Some(a), Some(b)) = (plain.expected.first(), with_sae.expected.first()) {
        let said = |p: &saescope::model_hooks::Prediction| format!("rank {}, {}", p.rank, percent(p.probability));
        words = format!(
            "\"{}\" goes on with {}: {} without the SAE; {} with it.",
            args.prompt,
            visible_token(&a.text),
            said(a),
            said(b)
        );
    }
    print_line(format_args!("{words}\n{table}"));
    page.section(Section::new("with-sae", "A prompt, without the SAE and with it").text(words).table(&table));
    Ok(())
}

fn first(report: &PromptReport) -> Outcome<&PositionReport> {
    Ok(report.positions.first().ok_or("the answer has no tokens")?)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}
