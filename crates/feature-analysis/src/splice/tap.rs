//! [`Splice`] as a tap.

use super::Splice;
use candle_core::Tensor;
use model_hooks::{HookPoint, Interest, Tap, TapContext};

impl Tap for Splice<'_> {
    fn points(&self, _: &[HookPoint]) -> model_hooks::Result<Vec<(HookPoint, Interest)>> {
        let mut points = Vec::with_capacity(2 * self.saes.len());
        for spliced in &self.saes {
            if spliced.is_transcoder() {
                points.push((spliced.sae.input, Interest::Watch));
            }
            points.push((spliced.sae.output, Interest::Edit));
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
        let at = self.saes.iter_mut().find(|spliced| spliced.sae.output == cx.at);
        let x = match at {
            Some(spliced) => spliced.output(cx, x, &mut self.captured).map_err(|error| failed(cx, error))?,
            None => x,
        };
        self.see_inputs(cx, &x)?;
        Ok(x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> model_hooks::Result<Option<Interest>> {
        let of = |spliced: &super::spliced::Spliced<'_>| match cx.at {
            at if at == spliced.sae.output => Some(Interest::Edit),
            at if at == spliced.sae.input => Some(Interest::Watch),
            _ => None,
        };
        Ok(self.saes.iter().filter_map(of).max())
    }
}

impl Splice<'_> {
    /// At the first point that fires in any run, whatever a broken run left is dropped.
    fn start_run(&mut self, cx: &TapContext<'_>) {
        if self.saes.iter().map(|spliced| spliced.sae.input).min() == Some(cx.at) {
            self.saes.iter_mut().for_each(super::spliced::Spliced::start_run);
        }
    }

    fn see_inputs(&mut self, cx: &TapContext<'_>, x: &Tensor) -> model_hooks::Result<()> {
        let here = self.saes.iter_mut().filter(|spliced| spliced.is_transcoder() && spliced.sae.input == cx.at);
        here.into_iter().try_for_each(|spliced| spliced.see_input(x)).map_err(|error| failed(cx, error))
    }
}

fn failed(cx: &TapContext<'_>, error: crate::Error) -> model_hooks::Error {
    match error {
        crate::Error::Model(error) => *error,
        error => model_hooks::Error::Tap { point: cx.at, source: Box::new(error) },
    }
}
