//! Numbers that nobody guesses and that no other run has.

use ztc_wire::Canary;

/// 64 random bits.
pub(crate) fn u64() -> u64 {
    getrandom::u64().expect("getrandom(2) cannot fail once the machine has booted")
}

/// A nonce: 128 random bits as 32 hexadecimal digits, or 64 of them after a canary.
pub(crate) fn nonce(canary: Option<&Canary>) -> String {
    match canary {
        Some(canary) => format!("{canary}{:016x}", u64()),
        None => format!("{:016x}{:016x}", u64(), u64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_32_digits_and_begins_with_its_canary() {
        let canary = Canary::new(0x00c0_ffee);
        let [first, second] = [nonce(Some(&canary)), nonce(Some(&canary))];
        assert!(first.starts_with("0000000000c0ffee") && first.len() == 32, "{first}");
        assert_ne!(first, second);
        assert_eq!(nonce(None).len(), 32);
    }
}
