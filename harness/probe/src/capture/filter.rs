//! What the kernel hands over: a program of classic BPF (`Documentation/networking/filter.rst` of Linux).
//!
//! A node carries much that is nobody's of the watched, and what does not come in time is lost. The filter lets pass
//! what the sieve looks at, and some more: all of IPv6, and whatever may be an encapsulation between nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::packet::ENCAPSULATIONS;

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions are skipped where a comparison holds.
    pub(super) then: u8,
    /// How many where it does not.
    pub(super) otherwise: u8,
    pub(super) operand: u32,
}

// The operations, in the words of `linux/bpf_common.h`.
pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const LOAD_HALF: u16 = 0x28;
pub(super) const LOAD_BYTE: u16 = 0x30;
/// A half-word behind the header whose length is in X.
pub(super) const LOAD_HALF_BEHIND: u16 = 0x48;
/// X becomes the length of the header of IPv4 that begins at the operand.
pub(super) const LOAD_HEADER_LENGTH: u16 = 0xb1;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
pub(super) const JUMP_IF_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

/// More than any packet has.
const ALL: u32 = u32::MAX;

const UDP: u32 = 17;

/// A step whose jumps are not yet counted.
enum Step {
    Do(u16, u32),
    /// Pass if the accumulator is this.
    PassIf(u32),
    /// Drop if it is not.
    DropUnless(u32),
    /// Drop if it has any of these bits.
    DropIfAny(u32),
    /// Go to this step if it is this.
    GoIf(u32, usize),
}

/// The program that lets pass what is from or to these addresses; nothing where they are too many for one.
pub(super) fn instructions(addresses: &BTreeSet<IpAddr>) -> Option<Vec<Instruction>> {
    let addresses: Vec<u32> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address.to_bits()),
            IpAddr::V6(_) => None,
        })
        .collect();
    let mut steps = vec![
        Step::Do(LOAD_BYTE, 0),
        Step::Do(AND, 0xf0),
        Step::GoIf(0x40, 5),
        Step::PassIf(0x60),
        Step::Do(RETURN, 0),
    ];
    for field in [12, 16] {
        steps.push(Step::Do(LOAD_WORD, field));
        steps.extend(addresses.iter().map(|address| Step::PassIf(*address)));
    }
    steps.extend([
        Step::Do(LOAD_BYTE, 9),
        Step::DropUnless(UDP),
        // Only the first fragment has ports.
        Step::Do(LOAD_HALF, 6),
        Step::DropIfAny(0x1fff),
        Step::Do(LOAD_HEADER_LENGTH, 0),
        Step::Do(LOAD_HALF_BEHIND, 2),
    ]);
    steps.extend(ENCAPSULATIONS.map(|it| Step::PassIf(u32::from(it.port))));
    let (drop, pass) = (steps.len(), steps.len() + 1);
    let mut program = Vec::with_capacity(steps.len() + 2);
    for (at, step) in steps.into_iter().enumerate() {
        let skip = |to: usize| u8::try_from(to - at - 1).ok();
        let jump = |code, operand, then, otherwise| {
            Some(Instruction { code, then: then?, otherwise: otherwise?, operand })
        };
        program.push(match step {
            Step::Do(code, operand) => Instruction { code, then: 0, otherwise: 0, operand },
            Step::PassIf(it) => jump(JUMP_IF_EQUAL, it, skip(pass), Some(0))?,
            Step::DropUnless(it) => jump(JUMP_IF_EQUAL, it, Some(0), skip(drop))?,
            Step::DropIfAny(bits) => jump(JUMP_IF_ANY_BIT, bits, skip(drop), Some(0))?,
            Step::GoIf(it, to) => jump(JUMP_IF_EQUAL, it, skip(to), Some(0))?,
        });
    }
    let end = |operand| Instruction { code: RETURN, then: 0, otherwise: 0, operand };
    program.extend([end(0), end(ALL)]);
    Some(program)
}
