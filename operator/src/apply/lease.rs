//! Acts on the lease row. Each is a compare-and-set that may be repeated.

use region_lease::{Fence, LeaseError, NewGrant};
use region_plan::{Epoch, Grant, Region, RunId};

use super::outcome::Outcome;
use crate::sources::database::Database;

fn end(result: Result<(), LeaseError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) if error.outcome_unknown() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// Gives the lease up for a run.
pub(super) async fn fence(database: &Database, grant: &Grant, run: RunId, to: &Region) -> Outcome {
    let client = match database.acting().await {
        Ok(client) => client,
        Err(why) => return Outcome::Refused(why),
    };
    let wanted = Fence {
        app: database.app(),
        epoch: grant.epoch.0,
        grant_id: grant.id.0,
        run: run.0,
        to_region: to.as_str(),
    };
    end(region_lease::fence(&client, wanted).await)
}

/// Notes that a run will not be fenced for.
pub(super) async fn abort(database: &Database, run: RunId) -> Outcome {
    match database.acting().await {
        Ok(client) => end(region_lease::abort(&client, database.app(), run.0).await),
        Err(why) => Outcome::Refused(why),
    }
}

/// Takes the lease.
pub(super) async fn grant(
    database: &Database,
    from_epoch: Epoch,
    grant: &Grant,
    me: &Region,
    run: RunId,
) -> Outcome {
    let client = match database.acting().await {
        Ok(client) => client,
        Err(why) => return Outcome::Refused(why),
    };
    let new = NewGrant {
        app: database.app(),
        from_epoch: from_epoch.0,
        epoch: grant.epoch.0,
        grant_id: grant.id.0,
        region: me.as_str(),
        run: run.0,
    };
    end(region_lease::grant(&client, new).await)
}

/// Lets the holder take what customers send.
pub(super) async fn open_intake(database: &Database, grant: &Grant) -> Outcome {
    let intake = region_lease::Opened::Intake;
    match database.acting().await {
        Ok(client) => {
            end(region_lease::open(&client, database.app(), grant.epoch.0, grant.id.0, intake).await)
        }
        Err(why) => Outcome::Refused(why),
    }
}

/// Leaves the lease with its holder without a limit.
pub(super) async fn hand_back(database: &Database, grant: &Grant) -> Outcome {
    match database.acting().await {
        Ok(client) => end(region_lease::hand_back(&client, database.app(), grant.epoch.0, grant.id.0).await),
        Err(why) => Outcome::Refused(why),
    }
}

/// Asks for a limit of a lease that was handed back.
pub(super) async fn limit_again(database: &Database, grant: &Grant) -> Outcome {
    match database.acting().await {
        Ok(client) => {
            end(region_lease::limit_again(&client, database.app(), grant.epoch.0, grant.id.0).await)
        }
        Err(why) => Outcome::Refused(why),
    }
}
