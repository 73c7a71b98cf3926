//! Numbers of identities, and which identities there are at the moment.

use std::collections::{BTreeMap, HashMap};

use ztc_model::identity::{Identity, Reserved};

/// The first number of a pod's identity (`pkg/identity/numericidentity.go`,
/// `MinimalAllocationIdentity`).
const FIRST_ENDPOINT: u32 = 256;
/// The first number of the identity of a range of addresses, or of learnt ones: the scope of identities that are
/// local to a node (`IdentityScopeLocal`), and the first number in it.
const FIRST_CIDR: u32 = (1 << 24) + 1;

/// The number of an identity.
pub(super) type Number = u32;

/// Gives numbers to identities. An identity keeps its number for ever, so that records of one
/// run agree, though nobody may have it for a while.
#[derive(Debug)]
pub(super) struct Identities {
    numbers: HashMap<Identity, Number>,
    known: BTreeMap<Number, Identity>,
    next_endpoint: Number,
    next_cidr: Number,
}

impl Identities {
    /// The reserved identities.
    pub(super) fn new() -> Self {
        let known: BTreeMap<Number, Identity> = Reserved::ALL
            .into_iter()
            .map(|name| (name.number(), Identity::Reserved(name)))
            .collect();
        let numbers = known.iter().map(|(number, identity)| (identity.clone(), *number)).collect();
        Self { numbers, known, next_endpoint: FIRST_ENDPOINT, next_cidr: FIRST_CIDR }
    }

    /// The number of an identity: the same for equal labels, whichever pod has them.
    pub(super) fn number(&mut self, identity: &Identity) -> Number {
        if let Some(number) = self.numbers.get(identity) {
            return *number;
        }
        let next = match identity {
            Identity::Cidr(_) | Identity::Fqdn { .. } => &mut self.next_cidr,
            Identity::Endpoint(_) | Identity::Reserved(_) => &mut self.next_endpoint,
        };
        let number = *next;
        *next += 1;
        self.numbers.insert(identity.clone(), number);
        self.known.insert(number, identity.clone());
        number
    }

    /// The identity with that number.
    pub(super) fn get(&self, number: Number) -> Option<&Identity> {
        self.known.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use ztc_model::labels::{K8S, Labels};

    use super::*;

    #[test]
    fn pods_with_equal_labels_share_an_identity() {
        let mut identities = Identities::new();
        let web = Identity::Endpoint(Labels::new().with(K8S, "app", "web"));
        let api = Identity::Endpoint(Labels::new().with(K8S, "app", "api"));
        let number = identities.number(&web);
        assert_eq!(number, 256);
        assert_eq!(identities.number(&api), 257);
        assert_eq!(identities.number(&web.clone()), number);
        assert_eq!(identities.get(number), Some(&web));
    }

    #[test]
    fn ranges_and_reserved_names_are_numbered_apart_from_pods() {
        let mut identities = Identities::new();
        let range = Identity::Cidr("169.254.169.254/32".parse().unwrap());
        assert_eq!(identities.number(&range), 16_777_217);
        assert_eq!(identities.number(&Identity::Reserved(Reserved::World)), 2);
    }
}
