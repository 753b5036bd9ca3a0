/// The first NaN or infinity. Whole parts are looked through without a branch per value, which the compiler turns into vector code.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<usize> {
    const PART: usize = 4096;
    let part = values.chunks(PART).position(|part| part.iter().fold(false, |bad, x| bad | !x.is_finite()))?;
    values[part * PART..].iter().position(|x| !x.is_finite()).map(|i| part * PART + i)
}
