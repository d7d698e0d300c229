//! region-plan
