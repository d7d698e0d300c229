//! region-lease
