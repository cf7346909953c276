//! Values as SSH writes them (RFC 4251, section 5).

/// Reads values from the front; `None` when there are not enough bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// A number of any size, without leading zeros; a negative one counts as missing.
    pub(super) fn big_number(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        (!is_negative).then(|| without_zeros(bytes))
    }
}

pub(super) fn put_string(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and signatures are short");
    into.extend(length.to_be_bytes());
    into.extend(bytes);
}

/// Writes a number that is not negative.
pub(super) fn put_big_number(into: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = without_zeros(bytes);
    match bytes.first() {
        // Its first bit would be the sign.
        Some(first) if first & 0x80 != 0 => put_string(into, &[&[0], bytes].concat()),
        _ => put_string(into, bytes),
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings() {
        let mut bytes = Vec::new();
        put_string(&mut bytes, b"ab");
        put_big_number(&mut bytes, &[0, 0, 0x80]);
        put_big_number(&mut bytes, &[0]);
        assert_eq!(bytes, [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0x80, 0, 0, 0, 0]);
        let mut reader = Reader(&bytes);
        assert_eq!(reader.string(), Some(&b"ab"[..]));
        assert_eq!(reader.big_number(), Some(&[0x80][..]));
        assert_eq!(reader.big_number(), Some(&[][..]));
        assert_eq!(reader.number(), None);
        for bad in [&[0, 0, 0, 9, 1][..], &[0, 0], &[0xff; 8], &[0, 0, 0, 1, 0x80]] {
            assert_eq!(Reader(bad).big_number(), None);
        }
    }
}
