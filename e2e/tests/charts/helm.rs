//! The pinned Helm and the files of the charts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The charts of this repository.
pub(crate) const CHARTS: &[Chart] = &[Chart { name: "trading-region-operator" }, Chart { name: "trading" }];

/// A chart under `charts/`.
pub(crate) struct Chart {
    /// Its folder and name.
    pub(crate) name: &'static str,
}

/// A file with values; its first comments say how it is to be rendered or why it must be refused.
pub(crate) struct ValueSet {
    /// File name without ending.
    pub(crate) name: String,
    path: PathBuf,
}

impl ValueSet {
    /// The texts of the comment lines `# key: text`.
    pub(crate) fn comments(&self, key: &str) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap();
        let start = format!("# {key}: ");
        text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// The first of them.
    pub(crate) fn comment(&self, key: &str) -> Option<String> {
        self.comments(key).into_iter().next()
    }
}

impl Chart {
    /// The chart's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        repository().join("charts").join(self.name)
    }

    /// A file of the chart.
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder().join(file)).unwrap()
    }

    /// Values that must render: `ci/*.yaml` and the examples beside `values.yaml`.
    pub(crate) fn value_sets(&self) -> Vec<ValueSet> {
        let mut sets = value_sets(&self.folder().join("ci"));
        sets.extend(value_sets(&self.folder()).into_iter().filter(|set| set.name.starts_with("values-")));
        sets
    }

    /// Values that the schema must refuse.
    pub(crate) fn refused_sets(&self) -> Vec<ValueSet> {
        value_sets(&self.folder().join("ci/refused"))
    }

    /// Name and text of what a user of the chart gets.
    pub(crate) fn shipped_files(&self) -> Vec<(String, String)> {
        let folder = self.folder();
        let top = ["Chart.yaml", "README.md", "values.yaml", "values.schema.json", "values-eks.yaml"];
        let mut files: Vec<PathBuf> = top.iter().map(|file| folder.join(file)).collect();
        files.extend(fs::read_dir(folder.join("templates")).unwrap().map(|entry| entry.unwrap().path()));
        files
            .into_iter()
            .map(|file| (file.display().to_string(), fs::read_to_string(&file).unwrap()))
            .collect()
    }
}

/// The top folder of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Name and text of the YAML files directly in a folder, by name.
pub(crate) fn yaml_files(folder: &Path) -> Vec<(String, String)> {
    value_sets(folder).into_iter().map(|set| (set.name, fs::read_to_string(set.path).unwrap())).collect()
}

/// The value files directly in a folder, by name.
pub(crate) fn value_sets(folder: &Path) -> Vec<ValueSet> {
    let mut sets: Vec<ValueSet> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| ValueSet { name: path.file_stem().unwrap().to_string_lossy().into_owned(), path })
        .collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// The objects of a render.
pub(crate) fn objects(rendered: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(rendered).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// The pinned Helm. It is given no cluster.
pub(crate) struct Helm {
    program: PathBuf,
}

impl Helm {
    /// Builds it if this machine does not have it yet.
    pub(crate) fn pinned() -> Self {
        Self { program: lab::binaries::ensure(None).and_then(|all| all.path("helm")).unwrap() }
    }

    /// Renders all templates; the error is what Helm said.
    pub(crate) fn template(&self, chart: &Chart, set: &ValueSet) -> Result<String, String> {
        self.template_with(chart, set, &[])
    }

    /// The same with single values (`key=value`) on top.
    pub(crate) fn template_with(
        &self,
        chart: &Chart,
        set: &ValueSet,
        values: &[&str],
    ) -> Result<String, String> {
        let mut command = self.command("template");
        command.args(["release-name", "--namespace", "release-namespace", "--kube-version", "v1.36.3"]);
        command.arg(chart.folder()).arg("--values").arg(&set.path);
        command.args(values.iter().flat_map(|value| ["--set", value]));
        command.args(set.comment("helm").unwrap_or_default().split_whitespace());
        said(&command.output().unwrap())
    }

    /// Lints with these values; the error is what Helm said.
    pub(crate) fn lint(&self, chart: &Chart, set: &ValueSet) -> Result<String, String> {
        let mut command = self.command("lint");
        command.arg("--strict").arg(chart.folder()).arg("--values").arg(&set.path);
        said(&command.output().unwrap())
    }

    /// What an install would tell people, asked without a cluster.
    pub(crate) fn notes(&self, chart: &Chart, set: &ValueSet) -> Result<String, String> {
        let mut command = self.command("install");
        command.args(["release-name", "--namespace", "release-namespace", "--dry-run=client"]);
        command.arg(chart.folder()).arg("--values").arg(&set.path);
        let text = said(&command.output().unwrap())?;
        let notes = text.split_once("\nNOTES:\n").map(|(_, notes)| notes.to_owned());
        notes.ok_or_else(|| format!("no notes in {text}"))
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).env("KUBECONFIG", "/dev/null");
        command
    }
}

fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}
