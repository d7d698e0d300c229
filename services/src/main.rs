//! services

fn main() {}
