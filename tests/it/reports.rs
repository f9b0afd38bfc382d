//! What the runtime says through `tracing`.

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use tracing::field::{Field, Visit};

use crate::workload::lock;

/// A subscriber that passes on what contains a text: level, message, then the fields by name.
pub(crate) struct Reports {
    text: &'static str,
    to: Mutex<Sender<String>>,
}

impl Reports {
    /// Of the whole process, so call this in one of its own.
    pub(crate) fn subscribe_to(text: &'static str) -> Receiver<String> {
        let (reported, reports) = channel();
        let to = Mutex::new(reported);
        let subscriber = Reports { text, to };
        tracing::subscriber::set_global_default(subscriber).expect("nobody else has");
        reports
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        }
        .unwrap();
    }
}

impl tracing::Subscriber for Reports {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "polity"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        if line.0.contains(self.text) {
            let _ = lock(&self.to).send(line.0);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
