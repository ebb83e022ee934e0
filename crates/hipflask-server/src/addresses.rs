//! How many connections each address has, where that is limited.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::client::{Client, Trust};
use crate::exchange::ConnInfo;

/// Whom connections are counted for: an IPv4 address, or the first half of an IPv6 address, since whoever has one has as
/// many more as the second half has numbers (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    V4(u32),
    V6(u64),
}

impl Holder {
    /// `None` for those who are not counted: clients of Unix sockets, and trusted proxies, which have everybody's
    /// connections.
    fn of(info: &ConnInfo) -> Option<Holder> {
        if info.trust == Trust::Yes {
            return None;
        }
        match info.announced() {
            Client::Ip(address, _) => Some(match address.to_canonical() {
                IpAddr::V4(address) => Holder::V4(address.to_bits()),
                IpAddr::V6(address) => Holder::V6((address.to_bits() >> 64) as u64),
            }),
            Client::Unix | Client::Hidden(_) => None,
        }
    }
}

/// The open connections by who has them: no more entries than there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: usize,
    counts: HashMap<Holder, usize>,
}

impl Addresses {
    /// `None` if there is no limit.
    pub(crate) fn new(most: usize) -> Option<Box<Addresses>> {
        (most > 0).then(|| Box::new(Addresses { most, counts: HashMap::new() }))
    }

    /// Counts a connection in: whether it is counted. An error if its address has as many as it may.
    pub(crate) fn enter(&mut self, info: &ConnInfo) -> Result<bool, ()> {
        let Some(holder) = Holder::of(info) else { return Ok(false) };
        let count = self.counts.entry(holder).or_insert(0);
        if *count >= self.most {
            return Err(());
        }
        *count += 1;
        Ok(true)
    }

    /// Counts a connection out that was counted in.
    pub(crate) fn leave(&mut self, info: &ConnInfo) {
        let Some(holder) = Holder::of(info) else { return };
        if let Some(count) = self.counts.get_mut(&holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Address;

    fn info(peer: &str) -> ConnInfo {
        let peer = peer.parse().map_or(Address::Unix(None), Address::Tcp);
        ConnInfo::new(peer.clone(), peer)
    }

    #[test]
    fn connections_are_counted_by_address_and_by_the_first_half_of_long_ones() {
        for (first, second, same) in [
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("192.0.2.1:1", "192.0.2.2:1", false),
            ("192.0.2.1:1", "[::ffff:192.0.2.1]:9", true),
            ("[2001:db8::1]:1", "[2001:db8::ffff:0:0:2]:1", true),
            ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false),
        ] {
            let mut addresses = Addresses::new(1).unwrap();
            assert_eq!(addresses.enter(&info(first)), Ok(true));
            assert_eq!(addresses.enter(&info(second)), if same { Err(()) } else { Ok(true) }, "{second}");
            addresses.leave(&info(first));
            assert_eq!(addresses.counts.len(), usize::from(!same));
        }
    }

    #[test]
    fn those_who_bring_many_clients_are_not_counted() {
        let mut addresses = Addresses::new(1).unwrap();
        for _ in 0..3 {
            assert_eq!(addresses.enter(&info("unix")), Ok(false));
            let proxy = ConnInfo { trust: Trust::Yes, ..info("192.0.2.1:1") };
            assert_eq!(addresses.enter(&proxy), Ok(false));
        }
        assert!(addresses.counts.is_empty());
        assert!(Addresses::new(0).is_none());
    }
}
