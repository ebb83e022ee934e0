//! Which content coding a client wants (RFC 9110 §8.4.1, §12.5.3).
//!
//! Knows the three codings that are worth having. Does not compress.

use crate::token::trim;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them, those that make files smallest first.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// The name in `Content-Encoding`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What the name of a file so compressed ends with, after a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zst",
            Coding::Gzip => "gz",
        }
    }

    fn named(name: &[u8]) -> Option<Coding> {
        // RFC 9110 §8.4.1.3: x-gzip is gzip.
        let is = |token: &str| name.eq_ignore_ascii_case(token.as_bytes());
        match name {
            _ if is("x-gzip") => Some(Coding::Gzip),
            _ => Coding::ALL.into_iter().find(|coding| is(coding.token())),
        }
    }

    fn index(self) -> usize {
        match self {
            Coding::Brotli => 0,
            Coding::Zstd => 1,
            Coding::Gzip => 2,
        }
    }
}

/// What a client said about codings. By default nothing: it gets content as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Thousandths, by [`Coding::index`].
    weights: [u16; 3],
    /// That of no coding, if it was named.
    identity: u16,
}

impl Accepted {
    /// Reads the values of all `Accept-Encoding` fields.
    ///
    /// `Accept-Encoding = #( ( coding / "identity" / "*" ) [ ";q=" qvalue ] )`. What is not in the grammar counts as not
    /// said. Without any the client accepts whatever comes, but knows nothing of codings in practice.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Accepted {
        let mut named = [None; 3];
        let (mut any, mut identity) = (0, 0);
        for item in values.flat_map(|value| value.split(|byte| *byte == b',')) {
            let mut parts = item.split(|byte| *byte == b';').map(trim);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = weight(parts) else { continue };
            if name == b"*" {
                any = weight;
            } else if name.eq_ignore_ascii_case(b"identity") {
                identity = weight;
            } else if let Some(coding) = Coding::named(name)
                && let Some(place) = named.get_mut(coding.index())
            {
                *place = Some(weight);
            }
        }
        Accepted { weights: named.map(|weight| weight.unwrap_or(any)), identity }
    }

    /// Whether the client takes any coding.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.weights.iter().any(|weight| *weight > 0)
    }

    /// The coding to use out of those that can be had, the server's favourite first; `None` for no coding.
    pub fn best(&self, offered: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        // No coding is taken where the client likes it better, and equally much where it names it at all.
        let mut most = self.identity;
        for coding in offered {
            let weight = self.weights.get(coding.index()).copied().unwrap_or_default();
            let is_better = match best {
                None => weight >= most && weight > 0,
                Some(_) => weight > most,
            };
            if is_better {
                (best, most) = (Some(coding), weight);
            }
        }
        best
    }
}

/// `weight = OWS ";" OWS "q=" qvalue` in thousandths; 1 if there is none, `None` if it is malformed.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let Some(parameter) = parameters.next() else { return Some(1000) };
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    let (whole, digits) = match value {
        [whole] => (*whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (*whole, digits),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, worth) in digits.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * worth;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(field: &str, offered: &[Coding]) -> &'static str {
        let accepted = Accepted::of(std::iter::once(field.as_bytes()));
        accepted.best(offered.iter().copied()).map_or("-", Coding::token)
    }

    #[test]
    fn the_client_decides_then_the_server() {
        for (field, expected) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, deflate", "gzip"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("br;q=0.5, gzip", "gzip"),
            ("br; q=0.5 , zstd\t;\tq=0.8, gzip;q=0.500", "zstd"),
            ("br;q=1.000, gzip;Q=0.999", "br"),
            ("*", "br"),
            ("*;q=0.1, br;q=0", "zstd"),
            ("*, gzip;q=0", "br"),
            ("br;q=0, zstd;q=0, *", "gzip"),
            ("identity;q=0, gzip;q=0.001", "gzip"),
            ("identity, gzip;q=0.5", "-"),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0.2, gzip;q=0.5", "gzip"),
            ("identity", "-"),
            ("identity;q=0", "-"),
            ("*;q=0", "-"),
            ("", "-"),
            ("br;q=2", "-"),
            ("br;q=0.1234", "-"),
            ("br;q=1.001", "-"),
            ("br;q=", "-"),
            ("br;level=5", "-"),
            ("br;q=0.0", "-"),
            ("brotli, gz, compress", "-"),
            (";;,,=,gzip", "gzip"),
        ] {
            assert_eq!(best(field, &Coding::ALL), expected, "{field}");
        }
    }

    #[test]
    fn only_what_is_offered_is_chosen() {
        assert_eq!(best("br, gzip;q=0.5", &[Coding::Gzip]), "gzip");
        assert_eq!(best("br, gzip;q=0.5, identity;q=0.8", &[Coding::Gzip]), "-");
        assert_eq!(best("br", &[]), "-");
        assert_eq!(best("br, zstd", &[Coding::Zstd, Coding::Brotli]), "zstd");
    }

    #[test]
    fn several_fields_are_one_list_and_none_is_no_wish() {
        let accepted = Accepted::of([&b"br;q=0"[..], b"gzip"].into_iter());
        assert_eq!(accepted.best(Coding::ALL), Some(Coding::Gzip));
        assert!(!Accepted::of(std::iter::empty()).is_any());
        assert_eq!(Accepted::default().best(Coding::ALL), None);
    }
}
