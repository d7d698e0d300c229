//! region-operator

fn main() {}
