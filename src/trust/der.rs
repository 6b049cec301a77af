//! Reads DER as Go does in certificates (ITU-T X.690, section 10): definite and shortest lengths, tags of one byte.

use jiff::civil::DateTime;
use jiff::tz::Offset;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Context-specific tags: primitive.
pub(super) const fn context(number: u8) -> u8 {
    0x80 | number
}

pub(super) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// The input that is left. Each method consumes what it returns, and returns `None` if the input is something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

/// One element: its tag, all of its bytes, and its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

/// A BIT STRING, with the number of unused bits in its last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    padding: u8,
}

impl Bits<'_> {
    /// Bit `index`, counted from the first; missing bits are 0.
    pub(super) fn at(&self, index: usize) -> bool {
        let length = self.bytes.len() * 8 - usize::from(self.padding);
        index < length && self.bytes[index / 8] >> (7 - index % 8) & 1 == 1
    }

    /// The bytes with the padding shifted out.
    pub(super) fn right_aligned(&self) -> Vec<u8> {
        if self.padding == 0 {
            return self.bytes.to_vec();
        }
        let mut carry = 0;
        self.bytes
            .iter()
            .map(|byte| {
                let shifted = byte >> self.padding | carry;
                carry = byte << (8 - self.padding);
                shifted
            })
            .collect()
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rest of the input.
    pub(super) fn remaining(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn peeks(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    pub(super) fn element(&mut self) -> Option<Element<'a>> {
        let (&tag, &first) = (self.0.first()?, self.0.get(1)?);
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (header, length) = if first & 0x80 == 0 {
            (2, usize::from(first))
        } else {
            let count = usize::from(first & 0x7f);
            let bytes = self
                .0
                .get(2..2 + count)
                .filter(|_| (1..=4).contains(&count))?;
            let length = bytes
                .iter()
                .fold(0_usize, |sum, b| sum << 8 | usize::from(*b));
            if length < 128 || bytes[0] == 0 {
                return None;
            }
            (2 + count, length)
        };
        let whole = self.0.get(..header.checked_add(length)?)?;
        self.0 = &self.0[whole.len()..];
        Some(Element {
            tag,
            whole,
            content: &whole[header..],
        })
    }

    /// All bytes of an element with this tag.
    pub(super) fn whole(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element().filter(|e| e.tag == tag).map(|e| e.whole)
    }

    /// The content of an element with this tag.
    pub(super) fn bytes(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element().filter(|e| e.tag == tag).map(|e| e.content)
    }

    pub(super) fn read(&mut self, tag: u8) -> Option<Self> {
        self.bytes(tag).map(Self)
    }

    /// The inner `None`: the next element has another tag, or there is none.
    #[expect(clippy::option_option, reason = "absent is not the same as malformed")]
    pub(super) fn optional(&mut self, tag: u8) -> Option<Option<Self>> {
        if self.peeks(tag) {
            self.read(tag).map(Some)
        } else {
            Some(None)
        }
    }

    /// The bytes of an INTEGER in two's complement, as short as they can be.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bytes = self.bytes(INTEGER)?;
        match bytes {
            [] => None,
            [0, next, ..] if next & 0x80 == 0 => None,
            [0xff, next, ..] if next & 0x80 != 0 => None,
            _ => Some(bytes),
        }
    }

    /// A non-negative INTEGER that fits.
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        let bytes = self.integer()?;
        let bytes = bytes
            .strip_prefix(&[0])
            .filter(|b| !b.is_empty())
            .unwrap_or(bytes);
        let is_negative = bytes.len() == 8 && bytes[0] & 0x80 != 0;
        if bytes.len() > 8 || is_negative {
            return None;
        }
        Some(bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    pub(super) fn boolean(&mut self) -> Option<bool> {
        match self.bytes(BOOLEAN)? {
            [0] => Some(false),
            [0xff] => Some(true),
            _ => None,
        }
    }

    pub(super) fn bits(&mut self) -> Option<Bits<'a>> {
        let (&padding, bytes) = self.bytes(BIT_STRING)?.split_first()?;
        let is_clear = bytes.last().map_or(padding == 0, |last| {
            padding < 8 && last.trailing_zeros() >= padding.into()
        });
        is_clear.then_some(Bits { bytes, padding })
    }

    /// The bytes of an OBJECT IDENTIFIER whose numbers fit into 31 bits, as Go's do.
    pub(super) fn oid(&mut self) -> Option<&'a [u8]> {
        let bytes = self.bytes(OID)?;
        let mut number = 0_u32;
        let mut is_begun = false;
        for byte in bytes {
            if number >= 1 << 24 || (!is_begun && *byte == 0x80) {
                return None;
            }
            is_begun = byte & 0x80 != 0;
            number = if is_begun {
                number << 7 | u32::from(byte & 0x7f)
            } else {
                0
            };
        }
        (!is_begun && !bytes.is_empty()).then_some(bytes)
    }

    /// UTCTime or GeneralizedTime, in seconds since 1970.
    pub(super) fn time(&mut self) -> Option<i64> {
        let Element { tag, content, .. } = self.element()?;
        let digits = content.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, zone) = content.split_at(digits);
        let pair = |at: usize| -> Option<i8> {
            let (tens, ones) = (number.get(at)? - b'0', number.get(at + 1)? - b'0');
            i8::try_from(tens * 10 + ones).ok()
        };
        let (year, at) = match (tag, digits) {
            // 50 to 99 mean the 20th century (RFC 5280, 4.1.2.5.1).
            (UTC_TIME, 10 | 12) => (i16::from(pair(0)?), 2),
            (GENERALIZED_TIME, 14) => (i16::from(pair(0)?) * 100 + i16::from(pair(2)?), 4),
            _ => return None,
        };
        let year = match tag {
            UTC_TIME if year < 50 => 2000 + year,
            UTC_TIME => 1900 + year,
            _ => year,
        };
        let second = if number.len() == at + 8 {
            0
        } else {
            pair(at + 8)?
        };
        let time = DateTime::new(
            year,
            pair(at)?,
            pair(at + 2)?,
            pair(at + 4)?,
            pair(at + 6)?,
            second,
            0,
        );
        let time = Offset::UTC.to_timestamp(time.ok()?).map_or_else(
            // The last day of the year 9999 is beyond a timestamp's range.
            |_| (year == 9999).then_some(jiff::Timestamp::MAX.as_second()),
            |time| Some(time.as_second()),
        )?;
        Some(time - offset(zone)?)
    }
}

/// `Z`, or hours and minutes; a zero offset must be written as `Z`.
fn offset(zone: &[u8]) -> Option<i64> {
    let [sign, digits @ ..] = zone else {
        return None;
    };
    if zone == b"Z" {
        return Some(0);
    }
    let &[a, b, c, d] = digits else {
        return None;
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (hours, minutes) = (number(a, b), number(c, d));
    let seconds = hours * 3600 + minutes * 60;
    if hours > 24 || minutes > 60 || seconds == 0 {
        return None;
    }
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// Why a certificate can't be parsed.
pub(super) type Malformed = &'static str;
