pub(crate) mod way;
