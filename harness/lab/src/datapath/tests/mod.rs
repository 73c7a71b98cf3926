//! Real packets through a small cluster.

mod capture;
mod cluster;
mod faults;
mod names;
mod packets;
mod policies;
mod properties;
mod records;
mod restart;
mod walk;
