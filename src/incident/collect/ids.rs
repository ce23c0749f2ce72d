//! The ids of incidents: times, short enough to be typed.

/// The digits of an id: none looks like another (Crockford's alphabet).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The number behind an id.
pub fn id_number(id: &str) -> Option<u64> {
    id.bytes().try_fold(0_u64, |number, byte| {
        let digit = DIGITS.iter().position(|&digit| digit == byte)?;
        number.checked_mul(32)?.checked_add(digit as u64)
    })
}

/// An id: seconds since 1970 to the base of 32.
pub fn id_text(number: u64) -> String {
    let mut digits = Vec::new();
    let mut rest = number;
    while rest > 0 {
        digits.push(char::from(DIGITS[(rest % 32) as usize]));
        rest /= 32;
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_number() {
        let id = id_text(1_800_000_000);
        assert_eq!((id.len(), id_number(&id)), (7, Some(1_800_000_000)));
        assert_eq!((id_number("1NGE"), id_number("zzzzzzzzzzzzzzz")), (None, None));
    }
}
