//! From the text in a path to a value.

use std::borrow::Cow;

use crate::digits::digit;

/// Most digits that an integer in a path may have: CPython's default limit for `int()`. Longer ones match no rule,
/// since turning text into a number takes time that grows with the square of its length.
const MOST_DIGITS: usize = 4300;

/// How the text of a variable becomes a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Conversion {
    /// The text itself.
    Text,
    /// An integer of any size.
    Integer(Limits<i64>),
    /// A floating-point number.
    Float(Limits<f64>),
    /// A UUID.
    Uuid,
    /// By its owner, after matching.
    Deferred,
}

/// What a number must satisfy; otherwise its rule does not match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits<T> {
    /// How many characters, sign included; zero for any number.
    pub digits: usize,
    /// The smallest value.
    pub min: Option<T>,
    /// The largest value.
    pub max: Option<T>,
}

/// What a path held for a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'p> {
    /// Text.
    Text(Cow<'p, str>),
    /// An integer.
    Integer(i64),
    /// An integer beyond 64 bits: a sign if negative, then ASCII digits.
    Long(String),
    /// A floating-point number.
    Float(f64),
    /// A UUID, most significant byte first.
    Uuid(u128),
    /// Text that its owner converts.
    Deferred(Cow<'p, str>),
}

impl<T> Limits<T> {
    /// Any value.
    #[must_use]
    pub const fn none() -> Self {
        Self { digits: 0, min: None, max: None }
    }
}

impl Conversion {
    /// An integer without limits.
    #[must_use]
    pub const fn integer() -> Self {
        Self::Integer(Limits::none())
    }

    /// Converts what the variable's pattern accepted; `None` if a limit forbids it.
    #[must_use]
    pub fn convert<'p>(&self, text: &'p str) -> Option<Value<'p>> {
        match self {
            Self::Text => Some(Value::Text(Cow::Borrowed(text))),
            Self::Deferred => Some(Value::Deferred(Cow::Borrowed(text))),
            Self::Integer(limits) => integer(text, limits),
            Self::Float(limits) => float(text, limits),
            Self::Uuid => uuid(text),
        }
    }
}

impl Value<'_> {
    /// The same value, independent of the path.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Deferred(text) => Value::Deferred(Cow::Owned(text.into_owned())),
            Self::Integer(number) => Value::Integer(number),
            Self::Long(digits) => Value::Long(digits),
            Self::Float(number) => Value::Float(number),
            Self::Uuid(number) => Value::Uuid(number),
        }
    }
}

fn integer<'p>(text: &str, limits: &Limits<i64>) -> Option<Value<'p>> {
    if limits.digits != 0 && text.chars().count() != limits.digits {
        return None;
    }
    let ascii = ascii_number(text)?;
    let Ok(number) = ascii.parse::<i64>() else {
        let negative = ascii.starts_with('-');
        let beyond = if negative { limits.min.is_some() } else { limits.max.is_some() };
        let digits = ascii.trim_start_matches('-');
        return if beyond || digits.is_empty() || digits.len() > MOST_DIGITS {
            None
        } else {
            Some(Value::Long(ascii.into_owned()))
        };
    };
    let allowed = limits.min.is_none_or(|min| number >= min) && limits.max.is_none_or(|max| number <= max);
    allowed.then_some(Value::Integer(number))
}

fn float<'p>(text: &str, limits: &Limits<f64>) -> Option<Value<'p>> {
    if limits.digits != 0 && text.chars().count() != limits.digits {
        return None;
    }
    let number: f64 = ascii_number(text)?.parse().ok()?;
    let below = limits.min.is_some_and(|min| number < min);
    let above = limits.max.is_some_and(|max| number > max);
    (!below && !above).then_some(Value::Float(number))
}

/// The same number in ASCII digits; sign and point stay.
fn ascii_number(text: &str) -> Option<Cow<'_, str>> {
    if text.is_ascii() {
        return Some(Cow::Borrowed(text));
    }
    let ascii = |found: char| digit(found).map_or(found, |value| char::from(b'0' + value));
    let converted: String = text.chars().map(ascii).collect();
    converted.is_ascii().then_some(Cow::Owned(converted))
}

fn uuid<'p>(text: &str) -> Option<Value<'p>> {
    let mut number = 0_u128;
    for found in text.chars().filter(|&found| found != '-') {
        number = number << 4 | u128::from(found.to_digit(16)?);
    }
    Some(Value::Uuid(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_size_and_script_are_read() {
        let any = Conversion::integer();
        assert_eq!(any.convert("007"), Some(Value::Integer(7)));
        assert_eq!(any.convert("-0"), Some(Value::Integer(0)));
        assert_eq!(any.convert("٣٣"), Some(Value::Integer(33)));
        assert_eq!(any.convert("9223372036854775808"), Some(Value::Long("9223372036854775808".into())));
        assert_eq!(any.convert(&"9".repeat(MOST_DIGITS)), Some(Value::Long("9".repeat(MOST_DIGITS))));
        assert_eq!(any.convert(&"9".repeat(MOST_DIGITS + 1)), None);
    }

    #[test]
    fn limits_turn_a_match_down() {
        let limited = Conversion::Integer(Limits { digits: 2, min: Some(5), max: Some(50) });
        let outcomes = ["07", "7", "04", "51", "50"].map(|text| limited.convert(text).is_some());
        assert_eq!(outcomes, [true, false, false, false, true]);
        let most = Conversion::Integer(Limits { max: Some(1), ..Limits::none() });
        assert_eq!(most.convert("99999999999999999999"), None);
        assert!(most.convert("-99999999999999999999").is_some());
        let float = Conversion::Float(Limits { min: Some(0.5), ..Limits::none() });
        assert_eq!(float.convert("0.25"), None);
        assert_eq!(float.convert("٠.٥"), Some(Value::Float(0.5)));
    }

    #[test]
    fn a_uuid_is_a_number_of_128_bits() {
        let text = "a8098c1a-f86e-11da-BD1A-00112444be1e";
        assert_eq!(
            Conversion::Uuid.convert(text),
            Some(Value::Uuid(0xa809_8c1a_f86e_11da_bd1a_0011_2444_be1e))
        );
    }
}
