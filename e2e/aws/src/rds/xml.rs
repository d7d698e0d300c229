//! Writing the query protocol's XML.

use std::fmt::Write;

/// XML namespace of every RDS answer.
const NAMESPACE: &str = "http://rds.amazonaws.com/doc/2014-10-31/";

/// A piece of XML under construction.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// `<name>text</name>`, escaped.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.element(name, |xml| {
            for c in text.chars() {
                match c {
                    '<' => xml.0.push_str("&lt;"),
                    '>' => xml.0.push_str("&gt;"),
                    '&' => xml.0.push_str("&amp;"),
                    '"' => xml.0.push_str("&quot;"),
                    // Not allowed in XML 1.0 even when escaped.
                    c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => xml.0.push('\u{fffd}'),
                    c => xml.0.push(c),
                }
            }
        })
    }

    /// `<name>…</name>` around what `content` writes.
    pub(crate) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
        content(self);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        self
    }
}

/// A successful answer of `action`.
pub(crate) fn answer(action: &str, request_id: &str, content: impl FnOnce(&mut Xml)) -> String {
    document(&format!("{action}Response"), |xml| {
        xml.element(&format!("{action}Result"), content);
        xml.element("ResponseMetadata", |xml| {
            xml.text("RequestId", request_id);
        });
    })
}

/// An error.
pub(crate) fn error(kind: &str, code: &str, message: &str, request_id: &str) -> String {
    document("ErrorResponse", |xml| {
        xml.element("Error", |xml| {
            xml.text("Type", kind).text("Code", code).text("Message", message);
        });
        xml.text("RequestId", request_id);
    })
}

fn document(root: &str, content: impl FnOnce(&mut Xml)) -> String {
    let mut xml = Xml::default();
    content(&mut xml);
    let mut out = String::with_capacity(xml.0.len() + 128);
    // Writing to a String never fails.
    let _ = write!(out, "<{root} xmlns=\"{NAMESPACE}\">{}</{root}>", xml.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let document = error("Sender", "Code", "a < b & \"c\" > \u{1}", "id");
        assert!(
            document.contains("<Message>a &lt; b &amp; &quot;c&quot; &gt; \u{fffd}</Message>"),
            "{document}"
        );
    }
}
