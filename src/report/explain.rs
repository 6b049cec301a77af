//! The result of `pullpath explain` for pasted messages: the cause of each, where it is, and what to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style};
use super::{SCHEMA_VERSION, Tool};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::endpoint::Role;
use crate::model::text::joined;
use crate::pulls::answer::{Answer, Answers};

/// What `explain -o json` prints for messages: the fields of the first one with a cause, and the others.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath explanation")]
pub struct ExplainDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// The first message; messages with a cause are first.
    #[serde(flatten)]
    pub first: ExplainedMessage,
    /// The other messages, in the order of the text; repeated ones once.
    pub more: Vec<ExplainedMessage>,
    /// How many messages beyond the first 50 were skipped.
    pub omitted: usize,
}

/// One message, and its explanation. A value that the message does not show is null.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ExplainedMessage {
    /// The likeliest cause; null if the message matches none.
    pub cause: Option<Cause>,
    /// Other causes that the message fits, the likelier first.
    pub alternatives: Vec<Cause>,
    /// How sure `cause` is.
    pub confidence: Option<Confidence>,
    /// The fault of the connection, if `cause` names the leg that failed.
    pub beneath: Option<Cause>,
    /// No registry is at fault: the node, its policies or the pod's own settings are. `probe` is null then.
    pub on_node: bool,
    /// The leg that failed.
    pub leg: Option<Role>,
    /// The host that was contacted, or whose name was looked up.
    pub host: Option<String>,
    /// The address and port that was dialed.
    pub address: Option<String>,
    /// The name server that was queried.
    pub name_server: Option<String>,
    /// The HTTP status of the response.
    pub status: Option<u16>,
    /// The server's own message, without secrets.
    pub server_message: Option<String>,
    /// Whether the pull sent a credential: `sent` or `none`.
    pub credential: Option<CredentialUse>,
    /// The image.
    pub image: Option<String>,
    /// The node that reported the message.
    pub node: Option<String>,
    /// What would decide between `cause` and `alternatives`.
    pub would_decide: Option<String>,
    /// How to fix the cause, or how to find it.
    pub hint: String,
    /// The command that would prove the cause, to be run on the node.
    pub probe: Option<String>,
    /// The message, with secrets masked, at most 1,024 characters.
    pub text: String,
    /// How often the text has the message.
    pub count: usize,
}

/// Whether a pull sent a credential.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialUse {
    /// One was sent.
    Sent,
    /// None was sent.
    None,
}

impl CredentialUse {
    fn of(is_sent: bool) -> Self {
        if is_sent { Self::Sent } else { Self::None }
    }
}

impl From<Answer> for ExplainedMessage {
    fn from(answer: Answer) -> Self {
        let failure = answer.failure;
        Self {
            on_node: failure.is_on_node(),
            cause: failure.cause,
            alternatives: failure.or,
            confidence: failure.confidence,
            beneath: failure.beneath,
            leg: failure.leg,
            host: failure.host,
            address: failure.address,
            name_server: failure.server,
            status: failure.status,
            server_message: failure.message,
            credential: failure.is_sent.map(CredentialUse::of),
            image: answer.image,
            node: answer.node,
            would_decide: answer.decider,
            hint: answer.hint,
            probe: answer.probe,
            text: answer.text,
            count: answer.count,
        }
    }
}

impl ExplainDocument {
    /// A document of this program and the current version.
    pub fn new(answers: Answers) -> Self {
        let mut all = answers.all.into_iter().map(ExplainedMessage::from);
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            first: all.next().unwrap_or_default(),
            more: all.collect(),
            omitted: answers.omitted,
        }
    }

    /// All messages, the first one included.
    pub fn messages(&self) -> impl Iterator<Item = &ExplainedMessage> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Whether each message has a cause.
    pub fn is_explained(&self) -> bool {
        self.messages().all(|message| message.cause.is_some())
    }
}

impl ExplainedMessage {
    /// Where the fault is, one fact for each line of a report.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let mut add = |what: &str, value: &Option<String>| {
            if let Some(value) = value {
                facts.push(format!("{what}: {value}"));
            }
        };
        add("image", &self.image);
        add("node", &self.node);
        add("host", &self.host);
        add("leg", &self.leg.map(|leg| leg.as_str().to_owned()));
        add("address", &self.address);
        add("name server", &self.name_server);
        add(
            "response",
            &self.status.map(|status| format!("HTTP {status}")),
        );
        add("server's message", &self.server_message);
        let credential = self.credential.map(|credential| match credential {
            CredentialUse::Sent => "one was sent".to_owned(),
            CredentialUse::None => "none was sent".to_owned(),
        });
        add("credential", &credential);
        add(
            "underlying cause",
            &self.beneath.map(|cause| cause.code().to_owned()),
        );
        facts
    }

    /// The codes of the alternatives, as a sentence part; empty without one.
    pub fn others(&self) -> String {
        joined(self.alternatives.iter().map(|cause| cause.code()))
    }
}

/// The text for people.
pub fn render(document: &ExplainDocument, style: Style) -> String {
    let mut page = Page::new(style);
    for (index, message) in document.messages().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.explained(message);
    }
    if document.omitted > 0 {
        page.line("");
        page.prose(
            "note: ",
            &format!("{} more messages were skipped", document.omitted),
        );
    }
    page.out
}

impl Page {
    fn explained(&mut self, message: &ExplainedMessage) {
        let repeated = match message.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        self.prose("message: ", &format!("{}{repeated}", message.text));
        match (message.cause, message.confidence) {
            (Some(cause), confidence) => {
                let code = self
                    .style
                    .paint(Ink::of(cause.entry().severity), cause.code());
                let confidence = confidence.map_or("low", Confidence::as_str);
                let place = if message.on_node {
                    " · no registry is at fault"
                } else {
                    ""
                };
                self.line(&format!("{code}  confidence {confidence}{place}"));
                self.prose("  ", cause.entry().title);
            }
            (None, _) => self.line(&self.style.paint(Ink::Warn, "no known cause")),
        }
        for fact in message.facts() {
            self.item(&fact);
        }
        if !message.alternatives.is_empty() {
            self.prose("  or: ", &message.others());
        }
        if let Some(would_decide) = &message.would_decide {
            self.prose("  to decide: ", would_decide);
        }
        self.hint(&message.hint);
        if let Some(probe) = &message.probe {
            let node = message.node.as_deref().unwrap_or("the node");
            self.line(&format!("  prove it on {node}: {probe}"));
        }
        if let Some(cause) = message.cause {
            let more = format!("  more: pullpath explain {}", cause.code());
            self.line(&self.style.paint(Ink::Dim, &more));
        }
    }
}
