/// The first NaN or infinity, with its place. Whole parts are looked through without a branch per value, which the compiler turns into vector code.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    const PART: usize = 4096;
    let mut parts = values.chunks(PART).enumerate();
    let (number, part) = parts.find(|(_, part)| part.iter().fold(false, |bad, x| bad | !x.is_finite()))?;
    let mut places = (number * PART..).zip(part.iter().copied());
    places.find(|(_, x)| !x.is_finite())
}
