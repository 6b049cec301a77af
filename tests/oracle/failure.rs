//! What `pulls::failure` makes of a real runtime's words, for the oracle: reads JSON lines of
//! `{"image": …, "text": …}`, prints one JSON line each: `{"cause": …, "or": […]}`.

#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::io::BufRead;

use pullpath::pulls::failure;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in std::io::stdin().lock().lines() {
        let asked: serde_json::Value = serde_json::from_str(&line?)?;
        let image = asked["image"].as_str().unwrap_or_default();
        let text = asked["text"].as_str().unwrap_or_default();
        let found = failure::judge(image, text);
        println!(
            "{}",
            serde_json::json!({ "cause": found.cause, "or": found.or })
        );
    }
    Ok(())
}
