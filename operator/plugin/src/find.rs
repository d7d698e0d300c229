//! The clusters of both regions: as they were named, or by contexts that are named like the regions of the object.

use crds::{TradingRegion, TradingRegionSpec};
use futures::future::join_all;
use kube::config::{Kubeconfig, KubeconfigError};

use crate::build::build;
use crate::cli::Global;
use crate::clock::now;
use crate::cluster::{Cluster, Copy, CopyError, read_both, region_of};
use crate::view::View;

/// Most other contexts that are asked for the object when the first one does not answer.
const MOST_OTHERS: usize = 8;

/// The clusters of both regions.
pub(crate) struct Regions {
    /// Each of them.
    pub(crate) clusters: Vec<Cluster>,
    way: String,
}

impl Regions {
    /// Finds the clusters; the object's spec names the regions.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or no context tells the regions' names.
    pub(crate) async fn find(global: &Global, name: Option<&str>) -> Result<Self, CopyError> {
        let kubeconfig = match &global.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = kubeconfig.map_err(|why| unread(&why))?;
        let (contexts, namespace) = if global.contexts.is_empty() {
            let (contexts, namespace) = named_like_regions(&kubeconfig, global, name).await?;
            (contexts, Some(namespace))
        } else {
            (global.contexts.clone(), global.namespace.clone())
        };
        let opened =
            contexts.iter().map(|context| Cluster::of_context(&kubeconfig, context, namespace.as_deref()));
        Ok(Self { clusters: join_all(opened).await, way: global.way() })
    }

    /// Reads both copies and makes the view of them. `target`: the region that a plan is wanted for.
    ///
    /// # Errors
    /// Not one copy is known.
    pub(crate) async fn look(
        &self,
        name: Option<&str>,
        target: Option<&str>,
    ) -> Result<(Vec<Copy>, View), CopyError> {
        let copies = read_both(&self.clusters, name).await;
        let mut view = build(&copies, target, now())?;
        view.way.clone_from(&self.way);
        Ok((copies, view))
    }
}

/// Without the quotes that a path has as a value of the program.
fn unread(why: &KubeconfigError) -> CopyError {
    CopyError::Kubeconfig {
        why: match why {
            KubeconfigError::ReadConfig(why, file) => format!("{}: {why}", file.display()),
            KubeconfigError::FindPath => "there is no home folder to look in".to_owned(),
            other => other.to_string(),
        },
    }
}

/// The contexts of both regions and the namespace in which the object was found: both calls go there.
async fn named_like_regions(
    kubeconfig: &Kubeconfig,
    global: &Global,
    name: Option<&str>,
) -> Result<(Vec<String>, String), CopyError> {
    let first = global.context.as_ref().or(kubeconfig.current_context.as_ref());
    let first = first.filter(|context| !context.is_empty()).ok_or(CopyError::NoContext)?;
    let cluster = Cluster::of_context(kubeconfig, first, global.namespace.as_deref()).await;
    let (found, object) = match cluster.read(name).await {
        Ok(object) => (first.clone(), object),
        Err(CopyError::Unreachable { context, why }) => {
            let other = from_the_other_side(kubeconfig, &cluster, name).await;
            other.ok_or_else(|| CopyError::Unreachable {
                context,
                why: format!(
                    "{why}; no other context that is named like a region shows the object: \
                     begin with one that answers by --context, or name both with --contexts A,B"
                ),
            })?
        }
        Err(why) => return Err(why),
    };
    Ok((contexts_of(kubeconfig, &found, &object), cluster.namespace))
}

/// The object as the other region shows it, while the first context does not answer. Both contexts have to be named like
/// regions of that object: another application's cluster is not taken for the other region.
async fn from_the_other_side(
    kubeconfig: &Kubeconfig,
    silent: &Cluster,
    name: Option<&str>,
) -> Option<(String, Box<TradingRegion>)> {
    let names = kubeconfig.contexts.iter().map(|context| context.name.as_str());
    let others = names.filter(|context| *context != silent.context && could_be_a_region(context));
    let asked = others.take(MOST_OTHERS).map(|context| async move {
        let cluster = Cluster::of_context(kubeconfig, context, Some(&silent.namespace)).await;
        let object = cluster.read(name).await.ok()?;
        joins(&object.spec, context, &silent.context).then(|| (context.to_owned(), object))
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// As the definition has regions' names; other contexts are not worth a question to their cluster.
fn could_be_a_region(context: &str) -> bool {
    context.len() <= 32 && context.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn joins(spec: &TradingRegionSpec, one: &str, other: &str) -> bool {
    one != other && spec.region(one).is_some() && spec.region(other).is_some()
}

/// The context of each region, when the object was found through one of them.
fn contexts_of(kubeconfig: &Kubeconfig, found: &str, object: &TradingRegion) -> Vec<String> {
    let mine = region_of(found, Some(object));
    let known = |region: &str| kubeconfig.contexts.iter().any(|context| context.name == region);
    let contexts = object.spec.regions.iter().map(|region| match &mine {
        Some(mine) if *mine == region.name => found.to_owned(),
        None if !known(&region.name) && object.spec.region(found).is_none() => found.to_owned(),
        _ => region.name.clone(),
    });
    let mut contexts: Vec<String> = contexts.collect();
    contexts.dedup();
    contexts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_is_not_there_is_told_with_its_plain_path_and_what_to_set() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let said = unread(&KubeconfigError::ReadConfig(missing, "/nowhere/config".into())).to_string();
        assert!(said.contains("/nowhere/config: ") && !said.contains('"'), "{said}");
        assert!(said.contains("KUBECONFIG") && said.contains("--kubeconfig"), "{said}");
    }

    #[test]
    fn only_contexts_that_may_be_named_like_a_region_are_asked() {
        assert!(could_be_a_region("us-west-2"));
        for context in ["arn:aws:eks:us-east-1:1:cluster/a", "admin@dev", "My_cluster"] {
            assert!(!could_be_a_region(context), "{context}");
        }
    }
}
