//! aws-simulator
