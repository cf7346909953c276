//! The one piece of arithmetic that OpenSSH's RSA keys need: they lack two of the numbers that fast signing wants, which are
//! remainders of those that are there (RFC 8017, section 3.2).

/// `number` modulo `divisor - 1`; both big-endian. `None` if there is no such remainder.
pub(super) fn modulo_one_less(number: &[u8], divisor: &[u8]) -> Option<Vec<u8>> {
    let mut divisor = divisor.to_vec();
    let last = divisor.last_mut()?;
    // A prime is odd.
    *last = last.checked_sub(1)?;
    if divisor.iter().all(|byte| *byte == 0) {
        return None;
    }
    // One byte more, so that doubling does not overflow.
    divisor.insert(0, 0);
    let mut remainder = vec![0; divisor.len()];
    for byte in number {
        for bit in (0..8).rev() {
            double_and_add(&mut remainder, byte >> bit & 1);
            if remainder >= divisor {
                subtract(&mut remainder, &divisor);
            }
        }
    }
    remainder.remove(0);
    Some(remainder)
}

fn double_and_add(number: &mut [u8], mut carry: u8) {
    for byte in number.iter_mut().rev() {
        (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
    }
}

/// `from` is not less than `number`.
fn subtract(from: &mut [u8], number: &[u8]) {
    let mut borrow = 0;
    for (byte, less) in from.iter_mut().zip(number).rev() {
        let difference = i16::from(*byte) - i16::from(*less) - borrow;
        borrow = i16::from(difference < 0);
        *byte = difference.rem_euclid(256) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_machine_numbers_have_it() {
        for (number, divisor) in
            [(0_u64, 7_u64), (12, 7), (u64::MAX, 255), (1 << 40, (1 << 33) + 1)]
        {
            let remainder = modulo_one_less(&number.to_be_bytes(), &divisor.to_be_bytes()).unwrap();
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&remainder);
            assert_eq!(u64::from_be_bytes(bytes), number % (divisor - 1), "{number} {divisor}");
        }
        assert_eq!(modulo_one_less(&[1], &[]), None);
        assert_eq!(modulo_one_less(&[1], &[1]), None);
        assert_eq!(modulo_one_less(&[1], &[1, 0]), None);
    }
}
