//! region-keeper

fn main() {}
