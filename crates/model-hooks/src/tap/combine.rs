//! Taps made of taps.

use super::{Interest, Tap, TapContext, guarded_edit};
use crate::{HookPoint, Result};
use candle_core::Tensor;

impl<T: Tap + ?Sized> Tap for &mut T {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        (**self).points(reached)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        (**self).watch(cx, x)
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        (**self).edit(cx, x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        (**self).interest(cx)
    }
}

impl<T: Tap + ?Sized> Tap for Box<T> {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        (**self).points(reached)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        (**self).watch(cx, x)
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        (**self).edit(cx, x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        (**self).interest(cx)
    }
}

/// First `A`, then `B`: at a point that both want, `B` sees what `A` returned.
impl<A: Tap, B: Tap> Tap for (A, B) {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        let mut points = self.0.points(reached)?;
        points.extend(self.1.points(reached)?);
        Ok(points)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        offer(&mut self.0, cx, x)?;
        offer(&mut self.1, cx, x)
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        let x = pass_through(&mut self.0, cx, x)?;
        pass_through(&mut self.1, cx, x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        Ok(self.0.interest(cx)?.max(self.1.interest(cx)?))
    }
}

/// One after the other, in the order of the vector.
impl<T: Tap> Tap for Vec<T> {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        let mut points = Vec::new();
        for tap in self {
            points.extend(tap.points(reached)?);
        }
        Ok(points)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        self.iter_mut().try_for_each(|tap| offer(tap, cx, x))
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        self.iter_mut().try_fold(x, |x, tap| pass_through(tap, cx, x))
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        self.iter().try_fold(None, |most, tap| Ok(most.max(tap.interest(cx)?)))
    }
}

fn offer(tap: &mut impl Tap, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
    match tap.interest(cx)? {
        Some(_) => tap.watch(cx, x),
        None => Ok(()),
    }
}

fn pass_through(tap: &mut impl Tap, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
    match tap.interest(cx)? {
        Some(Interest::Watch) => tap.watch(cx, &x).map(|()| x),
        Some(Interest::Edit) => guarded_edit(tap, cx, x),
        None => Ok(x),
    }
}
