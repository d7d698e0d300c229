//! The routing control cluster: a register replicated to five endpoints, guarded by safety rules.
//!
//! [`register`], [`rules`] and [`endpoint`] are pure (time and chance are parameters); [`api`] is the wire of the data
//! plane, [`config_api`] that of the control plane.

pub(crate) mod api;
pub(crate) mod config_api;
pub(crate) mod endpoint;
pub(crate) mod register;
pub(crate) mod rules;
