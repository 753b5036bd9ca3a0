//! What holds of every splice.

use super::support::*;
use activation_store::TokenFilter;
use candle_core::{IndexOp, Tensor};
use model_hooks::{Capture, Edit, HookedModel, NoTap, PaddingSide, TokenBatch};
use sae_core::{Sae, SaeParts, SeqposSlice, SparseCoder};
use sae_hooks::{FeatureEdit, HookedSae, SaeHookPoint, SaeSite, Splice, run_with_saes};

/// One SAE each at a residual stream, at all heads of `z` and at an MLP's output, and a transcoder to the other MLP's output.
fn several<'a>(model: &'a dyn HookedModel, saes: &'a [sae_core::Sae], error_term: bool) -> Splice<'a> {
    let [resid, z, mlp, transcoder] = saes else { panic!("four SAEs") };
    let parts = [
        HookedSae::new(at("blocks.1.hook_mlp_out"), mlp),
        HookedSae::between(at("blocks.0.hook_attn_out"), at("blocks.0.hook_mlp_out"), transcoder),
        HookedSae::new(at("blocks.1.attn.hook_z"), z),
        HookedSae::new(at("blocks.0.hook_resid_pre"), resid),
    ];
    parts.into_iter().try_fold(Splice::new(model), |splice, sae| splice.with(sae.error_term(error_term))).unwrap()
}

fn four(model: &dyn HookedModel) -> Vec<sae_core::Sae> {
    let (d_model, d_z) = (model.shape().d_model, model.shape().n_heads * model.shape().d_head);
    [d_model, d_z, d_model, d_model].iter().zip(1..).map(|(&d, seed)| sae(model.engine(), seed, d, 96)).collect()
}

#[test]
fn with_the_error_term_and_no_edits_logits_are_the_plain_models() {
    each_of(&FAMILIES, |name, model, tokens, tolerance| {
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        let saes = four(model);
        let with_errors = model.forward(tokens, &mut several(model, &saes, true)).unwrap();
        assert_close(name, &with_errors, &plain, tolerance);
        let without = model.forward(tokens, &mut several(model, &saes, false)).unwrap();
        assert_apart(name, &without, &plain);
    });
}

#[test]
fn an_sae_that_loses_nothing_changes_nothing() {
    each(|name, model, tokens, tolerance| {
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        let shape = model.shape();
        let identities = [
            ("blocks.0.hook_resid_pre", shape.d_model),
            ("blocks.0.attn.hook_z", shape.n_heads * shape.d_head),
            ("blocks.0.attn.hook_k", shape.n_kv_heads * shape.d_head),
            ("blocks.1.mlp.hook_post", shape.d_mlp),
            ("blocks.1.hook_resid_post", shape.d_model),
        ];
        let saes = identities.map(|(hook, width)| HookedSae::new(at(hook), Identity(width)));
        assert_close(name, &run_with_saes(model, tokens, saes).unwrap(), &plain, tolerance);
    });
}

/// Of every family: each hook point whose values are vectors takes an SAE of their width, and of no other.
#[test]
fn an_sae_fits_wherever_values_are_vectors() {
    each_of(&FAMILIES, |name, model, tokens, tolerance| {
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        for &hook in model.hook_points() {
            let width = value(model, tokens, hook).dims()[2..].iter().product();
            let fitting = Splice::new(model).sae(hook, Identity(width));
            if hook.axes()[..2] != ["batch", "pos"] || hook.axes().ends_with(&["1"]) {
                assert!(refusal(fitting).contains("not vectors"), "{name}: {hook}");
                continue;
            }
            let logits = model.forward(tokens, &mut fitting.unwrap()).unwrap();
            assert_close(&format!("{name}: {hook}"), &logits, &plain, tolerance);
            let expected = format!("width {width}");
            assert!(refusal(Splice::new(model).sae(hook, Identity(width + 1))).contains(&expected), "{name}: {hook}");
        }
    });
}

#[test]
fn keeping_and_watching_change_nothing() {
    each(|name, model, tokens, _| {
        let saes = four(model);
        for error_term in [false, true] {
            let bare = model.forward(tokens, &mut several(model, &saes, error_term)).unwrap();
            let splice = several(model, &saes, error_term);
            let points = splice.sae_points();
            let mut watched = (splice.capture(points).unwrap(), Capture::all());
            assert_close(name, &model.forward(tokens, &mut watched).unwrap(), &bare, 0.0);
        }
    });
}

/// The model, edited by hand with what the SAE makes of a captured value, is the independent path here.
#[test]
fn without_the_error_term_the_value_is_the_reconstruction() {
    each(|name, model, tokens, tolerance| {
        let d_z = model.shape().n_heads * model.shape().d_head;
        for (hook, width) in [("blocks.1.hook_resid_pre", model.shape().d_model), ("blocks.1.attn.hook_z", d_z)] {
            let (hook, sae) = (at(hook), sae(model.engine(), 5, width, 128));
            let x = value(model, tokens, hook);
            let x_hat = sae.forward(&x.reshape(((), width)).unwrap()).unwrap().x_hat.reshape(x.shape()).unwrap();
            let by_hand = model.forward(tokens, &mut Edit::patch(hook, x_hat.clone())).unwrap();
            let mut taps = (Splice::new(model).sae(hook, &sae).unwrap(), Capture::new([hook]));
            assert_close(name, &model.forward(tokens, &mut taps).unwrap(), &by_hand, tolerance);
            // A later tap sees what the model goes on with.
            assert_close(name, taps.1.get(hook).unwrap(), &x_hat, 1e-6);
        }
    });
}

#[test]
fn what_is_captured_adds_up() {
    each(|name, model, tokens, _| {
        let (hook, d_z) = (at("blocks.1.attn.hook_z"), model.shape().n_heads * model.shape().d_head);
        let sae = sae(model.engine(), 6, d_z, 80);
        let mut splice = Splice::new(model).with(HookedSae::new(hook, &sae).error_term(true)).unwrap();
        let points = splice.sae_points();
        assert_eq!(points.iter().map(|p| p.site).collect::<Vec<_>>(), SaeSite::all().collect::<Vec<_>>());
        splice = splice.capture(points.clone()).unwrap();
        model.forward_until(tokens, hook, &mut splice).unwrap();
        assert_eq!(splice.captured().points().collect::<Vec<_>>(), points);
        let get = |site| splice.captured().tensor(SaeHookPoint::new(hook, site)).unwrap();
        let x = value(model, tokens, hook);
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let flat = x.reshape((batch, pos, d_z)).unwrap();
        assert_close(name, &get(SaeSite::Input), &flat, 0.0);
        let codes = splice.captured().codes(hook).unwrap();
        assert_eq!(codes, &sae.encode(&flat).unwrap(), "{name}");
        assert_close(name, &get(SaeSite::ActsPost), &get(SaeSite::ActsPre).relu().unwrap(), 1e-6);
        assert_eq!(get(SaeSite::ActsPost).dims(), [batch, pos, 80]);
        assert_close(name, &get(SaeSite::Recons), &sae.decode(codes).unwrap(), 0.0);
        let error = (flat - get(SaeSite::Recons)).unwrap().reshape(x.shape()).unwrap();
        assert_close(name, &get(SaeSite::Error), &error, 0.0);
        assert_close(name, &get(SaeSite::Output), &x, 1e-6);
    });
}

#[test]
fn silencing_all_features_beside_the_error_term_takes_away_what_they_add() {
    each(|name, model, tokens, tolerance| {
        let (hook, sae) = (at("blocks.1.hook_resid_pre"), sae(model.engine(), 7, model.shape().d_model, 128));
        let mut silent = Splice::new(model).with(HookedSae::new(hook, &sae).error_term(true)).unwrap();
        silent = silent.edit(hook, FeatureEdit::ablate_all()).unwrap();
        let x = value(model, tokens, hook);
        let b_dec = Tensor::new(sae.b_dec(), x.device()).unwrap();
        let left = (&x - sae.forward(&x).unwrap().x_hat).unwrap().broadcast_add(&b_dec).unwrap();
        let by_hand = model.forward(tokens, &mut Edit::patch(hook, left)).unwrap();
        assert_close(name, &model.forward(tokens, &mut silent).unwrap(), &by_hand, tolerance);
    });
}

#[test]
fn excluded_tokens_pass_by() {
    each(|name, model, tokens, tolerance| {
        let (hook, sae) =
            (at("blocks.1.attn.hook_z"), sae(model.engine(), 8, model.shape().n_heads * model.shape().d_head, 64));
        for error_term in [false, true] {
            let run = |excluded: &[u32]| {
                let sae = HookedSae::new(hook, &sae)
                    .error_term(error_term)
                    .filter(&TokenFilter::everything().with_ids(excluded.iter().copied()), None)
                    .unwrap();
                let splice = Splice::new(model).with(sae).unwrap().edit(hook, FeatureEdit::add([1, 2], 3.0)).unwrap();
                let points = splice.sae_points();
                let mut splice = splice.capture(points).unwrap();
                let logits = model.forward(tokens, &mut splice).unwrap();
                (logits, splice.into_captured())
            };
            let (x, (_, all), (_, most)) = (value(model, tokens, hook), run(&[]), run(&[3, 999_999]));
            let get = |from: &sae_hooks::SpliceCapture, site, row: usize, pos: usize| {
                from.tensor(SaeHookPoint::new(hook, site)).unwrap().i((row, pos)).unwrap()
            };
            for (row, ids) in tokens.rows().enumerate() {
                for (pos, id) in ids.iter().enumerate() {
                    let output = get(&most, SaeSite::Output, row, pos);
                    if *id == 3 {
                        assert_close(name, &output, &x.i((row, pos)).unwrap(), 0.0);
                        assert_apart(name, &get(&all, SaeSite::Output, row, pos), &output);
                        if error_term {
                            assert!(flat(&get(&most, SaeSite::Error, row, pos)).iter().all(|error| *error == 0.0));
                        }
                    } else {
                        assert_close(name, &output, &get(&all, SaeSite::Output, row, pos), 0.0);
                    }
                }
            }
            // Where all tokens pass by nothing changes.
            let ids = tokens.ids().to_vec();
            assert_close(name, &run(&ids).0, &model.forward(tokens, &mut NoTap).unwrap(), tolerance);
        }
    });
}

#[test]
fn a_transcoder_reads_at_one_hook_and_writes_at_another() {
    each(|name, model, tokens, tolerance| {
        let shape = model.shape();
        let (input, output) = (at("blocks.0.attn.hook_z"), at("blocks.1.mlp.hook_post"));
        let transcoder = Plain::new(9, shape.n_heads * shape.d_head, 48, shape.d_mlp);
        let vectors = value(model, tokens, input).flatten_from(2).unwrap();
        let by_hand = model.forward(tokens, &mut Edit::patch(output, transcoder.apply(&vectors))).unwrap();
        let between = |error_term| HookedSae::between(input, output, &transcoder).error_term(error_term);
        assert_close(name, &run_with_saes(model, tokens, [between(false)]).unwrap(), &by_hand, tolerance);
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        assert_close(name, &run_with_saes(model, tokens, [between(true)]).unwrap(), &plain, tolerance);
        // Edited features reach the output hook through the decoder alone.
        let splice = Splice::new(model).with(between(true)).unwrap().edit(output, FeatureEdit::add([4], 2.0)).unwrap();
        let row = (transcoder.decoder_rows(&[4]).unwrap() * 2.0).unwrap();
        let by_hand = model.forward(tokens, &mut Edit::add(output, row)).unwrap();
        assert_close(name, &model.forward(tokens, &mut { splice }).unwrap(), &by_hand, tolerance);
    });
}

#[test]
fn a_transcoder_reads_what_an_sae_at_its_input_writes() {
    each(|name, model, tokens, tolerance| {
        let d_model = model.shape().d_model;
        let (input, output) = (at("blocks.0.hook_resid_mid"), at("blocks.0.hook_mlp_out"));
        let (sae, transcoder) = (sae(model.engine(), 10, d_model, 64), Plain::new(11, d_model, 32, d_model));
        let x_hat = sae.forward(&value(model, tokens, input)).unwrap().x_hat;
        let mut by_hand = (Edit::patch(input, x_hat.clone()), Edit::patch(output, transcoder.apply(&x_hat)));
        let by_hand = model.forward(tokens, &mut by_hand).unwrap();
        let both = [HookedSae::between(input, output, &transcoder), HookedSae::new(input, &sae)];
        assert_close(name, &run_with_saes(model, tokens, both).unwrap(), &by_hand, tolerance);
    });
}

#[test]
fn one_head_goes_through_alone() {
    each(|name, model, tokens, tolerance| {
        let (hook, sae) = (at("blocks.1.attn.hook_z"), sae(model.engine(), 12, model.shape().d_head, 40));
        let x = value(model, tokens, hook);
        let x_hat = sae.forward(&x.narrow(2, 1, 1).unwrap().contiguous().unwrap()).unwrap().x_hat;
        let by_hand = model.forward(tokens, &mut Edit::patch(hook, x_hat).head(1)).unwrap();
        assert_close(
            name,
            &run_with_saes(model, tokens, [HookedSae::new(hook, &sae).head(1)]).unwrap(),
            &by_hand,
            tolerance,
        );
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        let with_error = HookedSae::new(hook, &sae).head(1).error_term(true);
        assert_close(name, &run_with_saes(model, tokens, [with_error]).unwrap(), &plain, tolerance);
    });
}

#[test]
fn nothing_is_left_behind() {
    each(|name, model, tokens, _| {
        let plain = model.forward(tokens, &mut NoTap).unwrap();
        let saes = four(model);
        let mut splice = several(model, &saes, false);
        let first = model.forward(tokens, &mut splice).unwrap();
        assert_close(name, &model.forward(tokens, &mut NoTap).unwrap(), &plain, 0.0);
        let other = TokenBatch::new(&[[5, 1, 4]]).unwrap();
        model.forward(&other, &mut splice).unwrap();
        assert_close(name, &model.forward(tokens, &mut splice).unwrap(), &first, 0.0);
    });
}

#[test]
fn rows_alone_are_as_rows_together() {
    each(|name, model, tokens, tolerance| {
        let saes = four(model);
        let together = model.forward(tokens, &mut several(model, &saes, false)).unwrap();
        for (row, ids) in tokens.rows().enumerate() {
            let alone = TokenBatch::new(&[ids]).unwrap();
            let alone = model.forward(&alone, &mut several(model, &saes, false)).unwrap();
            assert_close(name, &alone, &together.i(row..=row).unwrap(), tolerance);
        }
    });
}

/// Rows of several lengths, padded on either side with an id that is not excluded: what is spliced at the tokens is what is spliced alone.
#[test]
fn padded_rows_are_as_rows_alone() {
    each(|name, model, tokens, tolerance| {
        let saes = four(model);
        let rows: Vec<&[u32]> = tokens.rows().zip([10, 4]).map(|(row, len)| &row[..len]).collect();
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let padded = TokenBatch::padded(&rows, 5, side).unwrap();
            let together = model.forward(&padded, &mut several(model, &saes, false)).unwrap();
            for (row, ids) in rows.iter().enumerate() {
                let alone = TokenBatch::new(&[ids]).unwrap();
                let alone = model.forward(&alone, &mut several(model, &saes, false)).unwrap().i(0).unwrap();
                assert_close(name, &together.i((row, padded.token_range(row))).unwrap(), &alone, tolerance);
            }
        }
    });
}
/// A splice works in every step of a generation: edits know the whole sequence's positions, and no transcoder's input outlives a step.
#[test]
fn cached_steps_are_as_the_whole_run() {
    for engine in engines() {
        for name in ["gpt2", "llama"] {
            let model = model_on(name, engine);
            let (generator, tokens) = (model.generator().unwrap(), tokens(model.hooked()));
            let saes = four(model.hooked());
            let (resid, mlp) = (at("blocks.0.hook_resid_pre"), at("blocks.0.hook_mlp_out"));
            let splice = || {
                let splice =
                    several(model.hooked(), &saes, true).edit(resid, FeatureEdit::add([5], 3.0).positions(3..));
                splice.unwrap().edit(mlp, FeatureEdit::clamp([6], 4.0).positions(..2)).unwrap()
            };
            let whole = model.hooked().forward(&tokens, &mut splice()).unwrap();
            assert_apart(name, &whole, &model.hooked().forward(&tokens, &mut NoTap).unwrap());
            let (mut cache, mut splice) = (generator.new_cache(), splice());
            for columns in [0..4, 4..5, 5..10] {
                let rows: Vec<&[u32]> = tokens.rows().map(|row| &row[columns.clone()]).collect();
                let step = TokenBatch::new(&rows).unwrap();
                let logits = generator.forward_cached(&step, &mut cache, &mut splice).unwrap();
                let expected = whole.i((.., columns)).unwrap();
                assert_close(&format!("{name}, {engine}"), &logits, &expected, tolerance(engine));
            }
        }
    }
}

/// Positions of a filter count from each row's first token, padding aside, in every step of a generation.
#[test]
fn positions_of_a_filter_are_those_of_the_row_behind_a_cache() {
    let filter = TokenFilter::everything().with_positions(SeqposSlice { start: Some(0), stop: Some(6), step: None });
    for engine in engines() {
        let model = model_on("gpt2", engine);
        let (generator, hook) = (model.generator().unwrap(), at("blocks.1.hook_resid_pre"));
        let sae = sae(engine, 8, model.shape().d_model, 64);
        let splice = || {
            let at = HookedSae::new(hook, &sae).filter(&filter, None).unwrap();
            Splice::new(model.hooked()).with(at).unwrap()
        };
        let rows = [vec![3u32, 10, 17, 24, 31, 38, 45, 52], vec![3u32, 14, 25, 36, 47, 58, 69, 80, 91, 11, 22]];
        // The last four tokens of each row are steps of their own.
        let prompts: Vec<&[u32]> = rows.iter().map(|row| &row[..row.len() - 4]).collect();
        let (mut cache, mut taps) = (generator.new_cache(), splice());
        generator
            .forward_cached(&TokenBatch::padded(&prompts, 0, PaddingSide::Left).unwrap(), &mut cache, &mut taps)
            .unwrap();
        for left in (1..=4).rev() {
            let step: Vec<&[u32]> = rows.iter().map(|row| &row[row.len() - left..=row.len() - left]).collect();
            let found = generator.forward_cached(&TokenBatch::new(&step).unwrap(), &mut cache, &mut taps).unwrap();
            for (row, ids) in rows.iter().enumerate() {
                let alone = TokenBatch::new(&[&ids[..=ids.len() - left]]).unwrap();
                let whole = model.hooked().forward(&alone, &mut splice()).unwrap();
                let (found, expected) = (found.i((row, 0)).unwrap(), whole.i((0, ids.len() - left)).unwrap());
                assert_close(&format!("{engine}, row {row}"), &found, &expected, tolerance(engine));
            }
        }
    }
}

/// A skip transcoder from the residual stream to an MLP's output writes `decode(f) + x W_skip^T`: what its features do not carry passes
/// edits by, and the error term makes up for both.
#[test]
fn a_skip_connection_passes_the_features_by() {
    each(|name, model, tokens, tolerance| {
        let (input, output, width) = (at("blocks.0.hook_attn_out"), at("blocks.0.hook_mlp_out"), model.shape().d_model);
        let plain_sae = sae(model.engine(), 5, width, 96).with_engine(model_hooks::Engine::Reference);
        let Ok(plain_sae) = plain_sae else { return }; // Packed in bf16: its exact weights are gone.
        let w_skip = Plain::new(6, width, width, width).w_enc;
        let mut parts = SaeParts::new(
            plain_sae.w_enc_t().unwrap().t().unwrap(),
            plain_sae.b_enc().to_vec(),
            plain_sae.w_dec().clone(),
            plain_sae.b_dec().to_vec(),
        );
        (parts.w_skip, parts.transcoder) = (Some(w_skip), true);
        let transcoder = Sae::on(model.engine(), parts).unwrap();
        let x = value(model, tokens, input);
        let forward = transcoder.forward(&x).unwrap();
        assert!(forward.error.is_none());
        let point = |site| SaeHookPoint::new(output, site);
        let spliced = |error_term, edit: Option<FeatureEdit>| {
            let at = HookedSae::between(input, output, &transcoder).error_term(error_term);
            let splice = Splice::new(model).with(at).unwrap();
            let splice = if let Some(edit) = edit { splice.edit(output, edit).unwrap() } else { splice };
            let mut splice = splice.capture([point(SaeSite::Recons), point(SaeSite::Output)]).unwrap();
            model.forward_until(tokens, output, &mut splice).unwrap();
            splice.into_captured()
        };
        let found = spliced(false, None);
        assert_close(name, &found.tensor(point(SaeSite::Output)).unwrap(), &forward.x_hat, tolerance);
        let decoded = transcoder.decode(&forward.codes).unwrap();
        assert_close(name, &found.tensor(point(SaeSite::Recons)).unwrap(), &decoded, tolerance);
        let silent = spliced(false, Some(FeatureEdit::ablate_all()));
        let bias = Tensor::new(transcoder.b_dec(), x.device()).unwrap();
        let expected = transcoder.skip(&x).unwrap().unwrap().broadcast_add(&bias).unwrap();
        assert_close(name, &silent.tensor(point(SaeSite::Output)).unwrap(), &expected, tolerance);
        let whole = spliced(true, None).tensor(point(SaeSite::Output)).unwrap();
        assert_close(name, &whole, &value(model, tokens, output), tolerance);
    });
}
