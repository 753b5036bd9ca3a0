//! [`Splice`] as a tap.

use crate::active::ActiveSae;
use crate::error::Error;
use crate::splice::Splice;
use candle_core::Tensor;
use model_hooks::{HookPoint, Interest, Tap, TapContext};

impl Tap for Splice<'_> {
    fn points(&self, _: &[HookPoint]) -> model_hooks::Result<Vec<(HookPoint, Interest)>> {
        let mut points = Vec::with_capacity(2 * self.saes.len());
        for active in &self.saes {
            if active.is_transcoder() {
                points.push((active.sae.input, Interest::Watch));
            }
            points.push((active.sae.output, Interest::Edit));
        }
        Ok(points)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> model_hooks::Result<()> {
        self.start_run(cx);
        self.see_inputs(cx, x)
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> model_hooks::Result<Tensor> {
        self.start_run(cx);
        // A transcoder that reads what an SAE writes reads what the model goes on with.
        let at = self.saes.iter_mut().find(|active| active.sae.output == cx.at);
        let x = match at {
            Some(active) => active.output(cx, x, &mut self.captured).map_err(|error| failed(cx, error))?,
            None => x,
        };
        self.see_inputs(cx, &x)?;
        Ok(x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> model_hooks::Result<Option<Interest>> {
        let of = |active: &ActiveSae<'_>| match cx.at {
            at if at == active.sae.output => Some(Interest::Edit),
            at if at == active.sae.input => Some(Interest::Watch),
            _ => None,
        };
        Ok(self.saes.iter().filter_map(of).max())
    }
}

impl Splice<'_> {
    /// At the first point that fires in any run, whatever a broken run left is dropped.
    fn start_run(&mut self, cx: &TapContext<'_>) {
        if self.saes.iter().map(|active| active.sae.input).min() == Some(cx.at) {
            self.saes.iter_mut().for_each(ActiveSae::start_run);
        }
    }

    fn see_inputs(&mut self, cx: &TapContext<'_>, x: &Tensor) -> model_hooks::Result<()> {
        let here = self.saes.iter_mut().filter(|active| active.is_transcoder() && active.sae.input == cx.at);
        here.into_iter().try_for_each(|active| active.see_input(x)).map_err(|error| failed(cx, error))
    }
}

fn failed(cx: &TapContext<'_>, error: Error) -> model_hooks::Error {
    match error {
        Error::Model(error) => *error,
        error => model_hooks::Error::Tap { point: cx.at, source: Box::new(error) },
    }
}
