//! What a certificate says, as far as people and programs ask (RFC 5280).
//!
//! Reads; verifies nothing: rustls has done that before anybody looks here.

/// The parts of an X.509 certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for: attributes and values, most general first.
    pub subject: Vec<(String, String)>,
    /// Who vouches for it.
    pub issuer: Vec<(String, String)>,
    /// Its number, in upper-case hexadecimal digits.
    pub serial: String,
    /// Since when it is good: `YYYYMMDDHHMMSSZ`.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Hosts.
    pub dns_names: Vec<String>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// URIs, such as SPIFFE identities.
    pub uris: Vec<String>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP: u8 = 0x1e;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// The names of attributes that RFC 4514 and habit know.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// A row of values in DER, read from the front.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().and_then(|(found, value)| (found == tag).then_some(value))
    }
}

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let mut body = Der(Der(Der(der).take(SEQUENCE)?).take(SEQUENCE)?);
        let (mut tag, mut value) = body.next()?;
        if tag == VERSION {
            (tag, value) = body.next()?;
        }
        if tag != INTEGER {
            return None;
        }
        let serial = value.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(value);
        let serial = serial.iter().map(|byte| format!("{byte:02X}")).collect();
        body.take(SEQUENCE)?;
        let issuer = name(body.take(SEQUENCE)?)?;
        let mut validity = Der(body.take(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = name(body.take(SEQUENCE)?)?;
        let mut certificate =
            Certificate { subject, issuer, serial, not_before, not_after, ..Certificate::default() };
        body.take(SEQUENCE)?;
        while let Some((tag, value)) = body.next() {
            if tag == EXTENSIONS {
                certificate.extensions(value);
            }
        }
        Some(certificate)
    }

    fn extensions(&mut self, list: &[u8]) -> Option<()> {
        let mut list = Der(Der(list).take(SEQUENCE)?);
        while let Some(extension) = list.take(SEQUENCE) {
            let mut extension = Der(extension);
            let id = extension.take(OID)?;
            let (mut tag, mut value) = extension.next()?;
            if tag != OCTETS {
                (tag, value) = extension.next()?;
            }
            if id != SUBJECT_ALT_NAME || tag != OCTETS {
                continue;
            }
            let mut names = Der(Der(value).take(SEQUENCE)?);
            while let Some((tag, value)) = names.next() {
                let text = || String::from_utf8_lossy(value).into_owned();
                match tag {
                    EMAIL => self.emails.push(text()),
                    DNS => self.dns_names.push(text()),
                    URI => self.uris.push(text()),
                    _ => {}
                }
            }
        }
        Some(())
    }
}

fn name(rows: &[u8]) -> Option<Vec<(String, String)>> {
    let mut rows = Der(rows);
    let mut found = Vec::new();
    while let Some(row) = rows.take(SET) {
        let mut row = Der(row);
        while let Some(pair) = row.take(SEQUENCE) {
            let mut pair = Der(pair);
            let id = pair.take(OID)?;
            let (tag, value) = pair.next()?;
            let known = ATTRIBUTES.iter().find(|(known, _)| *known == id);
            found.push((known.map_or_else(|| dotted(id), |(_, name)| (*name).to_owned()), text(tag, value)));
        }
    }
    Some(found)
}

fn text(tag: u8, value: &[u8]) -> String {
    if tag != BMP {
        return String::from_utf8_lossy(value).into_owned();
    }
    let units =
        value.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte)));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// An object identifier in numbers with dots.
fn dotted(id: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for &byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// A time with four digits of year. RFC 5280 §4.1.2.5.1: two digits below 50 are of this century.
fn time((tag, value): (u8, &[u8])) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    match tag {
        UTC_TIME => Some(format!("{}{text}", if text < "50" { "20" } else { "19" })),
        GENERALIZED_TIME => Some(text.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Certificate, dotted};

    #[test]
    fn a_certificate_says_whom_it_is_for() {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "Ada");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Engine & Co");
        parameters.serial_number = Some(rcgen::SerialNumber::from(0xca_fe));
        parameters.not_before = rcgen::date_time_ymd(2024, 2, 29);
        parameters.not_after = rcgen::date_time_ymd(2051, 1, 2);
        let der = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::parse(der.der()).unwrap();
        assert!(read.subject.contains(&("CN".to_owned(), "Ada".to_owned())));
        assert!(read.issuer.contains(&("O".to_owned(), "Engine & Co".to_owned())));
        assert_eq!(read.serial, "CAFE");
        assert_eq!(read.not_before, "20240229000000Z");
        assert_eq!(read.not_after, "20510102000000Z");
        assert_eq!(read.dns_names, ["a.example", "*.b.example"]);
    }

    #[test]
    fn a_certificate_cut_short_is_none() {
        let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let der = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der = der.der();
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None, "{end}");
        }
    }

    #[test]
    fn identifiers_are_written_with_dots() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]), "1.2.840.113549.1.1.11");
        assert_eq!(dotted(&[0x55, 4, 3]), "2.5.4.3");
    }
}
