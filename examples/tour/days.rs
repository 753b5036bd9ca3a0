//! Cells 26 and 27: the days of the week, and the plane in which they lie.

use super::common::out::print_line;
use super::common::{Outcome, Setup, bar};
use super::{Args, cell, examples};
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Align, ScatterOptions, Table};
use saescope::feature_analysis::views::PcaPlotData;
use saescope::feature_analysis::{Pca, Solver, WordFeatureOptions, WordList, WordReport, word_features};

/// How many features of the family are shown, as many as the notebook's list of days has.
const FAMILY: usize = 9;

/// Cells 26 and 27: the features that fire on names of days, found by their activations, and the PCA of what they reconstruct.
pub fn days(args: &Args, setup: &Setup, page: &mut Page) -> Outcome {
    cell("26", "The features of the days of the week, found by their activations");
    let tokenizer = setup.model.try_tokenizer()?;
    let family = WordList::days(tokenizer)?;
    let options =
        WordFeatureOptions { total_batches: Some(args.family_batches()), top: FAMILY, ..WordFeatureOptions::default() };
    let (bar, mut progress) = bar(args.family_batches());
    let report = word_features(&setup.sae, &mut setup.store()?, &family, &options, &mut progress)?;
    bar.finish();
    let table = family_table(&report);
    print_line(format_args!("{}\n{table}", report.counts));
    let note = format!(
        "Ranked by (share of the days' tokens on which it fires) x (share of its firings that are on days). {}.",
        report.counts
    );
    let section = Section::new("family", "Features of the days of the week").text(note).table(&table);
    page.section(section);

    let features: Vec<u32> = report.features.iter().map(|f| f.feature).collect();
    if features.is_empty() {
        let occurrences: u64 = report.occurrences.iter().map(|(_, n)| n).sum();
        print_line(format_args!(
            "no feature fired on a day's name in these batches ({} names in them): nothing to draw",
            occurrences
        ));
        return Ok(());
    }
    let kept = examples(setup, &features, args.family_batches())?;
    print_line(format_args!("examples found: {}; {}", kept.len(), kept.counts()));

    cell("27", "PCA of the reconstructions from these features alone");
    if kept.len() < 4 {
        print_line(format_args!("{} examples are too few for three components", kept.len()));
        return Ok(());
    }
    let pca = Pca::fit(&kept.reconstructions()?, 3, Solver::default())?;
    let points = PcaPlotData::new(&kept, &pca, tokenizer)?;
    let ratio = pca.explained_variance_ratio();
    let axis = |i: usize| format!("PC{} ({:.1}% of the variance)", i + 1, 100.0 * ratio[i]);
    let names: Vec<String> = family.members.iter().map(|(name, _)| name.clone()).collect();
    let means = day_means(&points, &names);
    print_line(format_args!("{}\n{means}", (0..3).map(axis).collect::<Vec<_>>().join(", ")));
    let options = ScatterOptions {
        subtitle: Some(format!("{} examples of {} features; {}", kept.len(), features.len(), kept.counts().excluded)),
        x_label: axis(1),
        y_label: axis(2),
        height: 860,
        ..ScatterOptions::default()
    };
    let alone = ScatterOptions {
        title: "The same, the names of days alone".into(),
        subtitle: None,
        x_label: axis(0),
        y_label: axis(2),
        labels: names.clone(),
        height: 620,
        ..options.clone()
    };
    let note = "Every token on which one of these features fired, where their reconstruction puts it. Hover for the text around; click a token in \
                the legend to hide it, twice to see it alone.";
    page.section(
        Section::new("pca", "PCA of the days of the week")
            .text(note)
            .figure(points.scatter(1, 2, &options)?)
            .figure(points.only(&names).scatter(0, 2, &alone)?)
            .text("The mean of each day on the components:")
            .table(&means),
    );
    Ok(())
}

fn family_table(report: &WordReport) -> Table {
    let members = report.occurrences.iter().map(|(day, n)| (format!("{day} ({n})"), Align::Right));
    let columns = ["feature", "firings", "on days", "recall"].map(|c| (c.to_owned(), Align::Right));
    let mut table = Table::new(columns.into_iter().chain(members));
    let percent = |share: f64| if share.is_finite() { format!("{:.0}%", 100.0 * share) } else { "–".into() };
    for f in &report.features {
        let first = [f.feature.to_string(), f.firings.to_string(), percent(f.precision), percent(f.recall)];
        table.row(first.into_iter().chain(f.recall_per_member.iter().map(|r| percent(*r))));
    }
    table
}

fn day_means(points: &PcaPlotData, names: &[String]) -> Table {
    let mut table = Table::new([
        ("day", Align::Left),
        ("n", Align::Right),
        ("PC1", Align::Right),
        ("PC2", Align::Right),
        ("PC3", Align::Right),
    ]);
    for name in names {
        let (n, mean) = points.mean_of(name);
        let means = mean.iter().map(|m| if n == 0 { "–".into() } else { format!("{m:.3}") });
        table.row([name.clone(), n.to_string()].into_iter().chain(means));
    }
    table
}
