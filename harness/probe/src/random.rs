//! Numbers that nobody guesses and that no other run has.

/// 64 random bits.
pub(crate) fn u64() -> u64 {
    getrandom::u64().expect("getrandom(2) cannot fail once the machine has booted")
}

/// A nonce: 128 random bits as 32 hexadecimal digits.
pub(crate) fn nonce() -> String {
    format!("{:016x}{:016x}", u64(), u64())
}
