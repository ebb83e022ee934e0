//! Sets of networks: who is trusted.
//!
//! A network is written as an address with the length of its prefix (RFC 4632 §3.1, RFC 4291 §2.3), or as an address
//! alone. `unix:` stands for every client of a Unix socket, `*` for everybody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Networks more than anybody lists; each new connection is compared with all of them.
pub const MOST_NETWORKS: usize = 256;

/// One network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Ip { address: IpAddr, prefix: u8 },
    Unix,
    Everybody,
}

/// What is wrong with the text of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It is neither an address nor one with a prefix.
    NotANetwork(String),
    /// The prefix is longer than the address.
    LongPrefix(String),
    /// Bits of the address are set behind the prefix: probably the prefix is not what was meant.
    HostBits(String),
    /// There are more than [`MOST_NETWORKS`].
    TooMany,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::NotANetwork(text) => write!(f, "{text:?} is no network"),
            NetworkError::LongPrefix(text) => {
                write!(f, "the prefix of {text:?} is longer than its address")
            }
            NetworkError::HostBits(text) => write!(f, "{text:?} has bits set behind its prefix"),
            NetworkError::TooMany => write!(f, "at most {MOST_NETWORKS} networks are expected"),
        }
    }
}

impl std::error::Error for NetworkError {}

/// The bits of an address, at the upper end of 128, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The first bits of an address.
fn first_bits(address: u128, count: u8) -> u128 {
    // A shift by all bits is none that Rust knows.
    address.checked_shr(128 - u32::from(count)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text {
            "*" => return Ok(Network::Everybody),
            "unix:" => return Ok(Network::Unix),
            _ => {}
        }
        let not_a_network = || NetworkError::NotANetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| not_a_network())?;
        let (mut all, length) = bits(address);
        let prefix = match prefix {
            None => length,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| not_a_network())?
            }
            Some(_) => return Err(not_a_network()),
        };
        if prefix > length {
            return Err(NetworkError::LongPrefix(text.to_owned()));
        }
        all = all.checked_shl(u32::from(prefix)).unwrap_or(0);
        if all != 0 {
            return Err(NetworkError::HostBits(text.to_owned()));
        }
        // A v4 client of a v6 socket is a v4 client.
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) if prefix >= 96 => {
                Ok(Network::Ip { address: mapped, prefix: prefix - 96 })
            }
            _ => Ok(Network::Ip { address, prefix }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Everybody => f.write_str("*"),
            Network::Unix => f.write_str("unix:"),
            Network::Ip { address, prefix } if *prefix == bits(*address).1 => address.fmt(f),
            Network::Ip { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

/// A set of networks; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<Network>,
}

impl Networks {
    /// Reads a list.
    ///
    /// # Errors
    /// One of them is none, or there are too many.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Networks, NetworkError> {
        let networks = texts.into_iter().map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if networks.len() > MOST_NETWORKS {
            return Err(NetworkError::TooMany);
        }
        Ok(Networks { networks })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether an address is in one of them; an IPv4 address that is written as an IPv6 one counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (all, length) = bits(address.to_canonical());
        self.networks.iter().any(|network| match network {
            Network::Everybody => true,
            Network::Unix => false,
            Network::Ip { address, prefix } => {
                let (network, same) = bits(*address);
                same == length && first_bits(network, *prefix) == first_bits(all, *prefix)
            }
        })
    }

    /// Whether clients of Unix sockets are in one of them.
    #[must_use]
    pub fn contains_unix(&self) -> bool {
        self.networks.iter().any(|network| matches!(network, Network::Unix | Network::Everybody))
    }

    /// The networks as they may be written.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.networks.iter().map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::parse(texts.iter().copied()).unwrap()
    }

    #[test]
    fn an_address_is_in_its_networks_and_in_no_other() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "203.0.113.9", false),
            ("::1", "::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("*", "203.0.113.9", true),
            ("unix:", "127.0.0.1", false),
        ] {
            assert_eq!(
                networks(&[network]).contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        assert!(networks(&["unix:"]).contains_unix() && networks(&["*"]).contains_unix());
        assert!(!networks(&["0.0.0.0/0", "::/0"]).contains_unix());
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "localhost", "10.0.0.1:80", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "10/8", "[::1]"]
        {
            assert_eq!(Networks::parse([text]), Err(NetworkError::NotANetwork(text.to_owned())), "{text}");
        }
        assert_eq!(Networks::parse(["10.0.0.0/33"]), Err(NetworkError::LongPrefix("10.0.0.0/33".to_owned())));
        assert_eq!(Networks::parse(["10.0.0.1/8"]), Err(NetworkError::HostBits("10.0.0.1/8".to_owned())));
        assert_eq!(Networks::parse(["::1/0"]), Err(NetworkError::HostBits("::1/0".to_owned())));
        assert_eq!(
            Networks::parse([".".repeat(3).as_str(); 1]),
            Err(NetworkError::NotANetwork("...".into()))
        );
        assert_eq!(Networks::parse(["::1"; MOST_NETWORKS + 1]), Err(NetworkError::TooMany));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let texts = ["10.0.0.0/8", "::1", "2001:db8::/32", "unix:", "*", "0.0.0.0/0"];
        assert_eq!(networks(&texts).texts().collect::<Vec<_>>(), texts);
    }
}
