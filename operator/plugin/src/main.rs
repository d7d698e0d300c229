//! kubectl-region

fn main() {}
