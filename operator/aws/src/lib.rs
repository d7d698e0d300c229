//! region-aws
