//! Brings the sources together: flag, exported environment, `.env`, `liotbchain.toml`, default, in this order.

use super::mqtt::Mqtt;
use super::problem::Problem;
use super::sources::{Origin, Said, Sources, Texts};
use super::table::{Role, Setting, TABLE};
use super::value::Value;

/// Every setting with its value and where that came from, and what is wrong.
#[derive(Debug)]
pub struct Configuration {
    /// One for each row of the table, in its order.
    pub found: Vec<Found>,
    /// What must be put right before anything starts.
    pub problems: Vec<Problem>,
    /// What is probably a slip.
    pub warnings: Vec<Problem>,
}

/// What was found for one setting.
#[derive(Debug)]
pub struct Found {
    /// Its row.
    pub setting: &'static Setting,
    /// Its text, or nothing if it is not set.
    pub text: Option<String>,
    /// What the text says, or nothing if it is not set or not allowed.
    pub value: Option<Value>,
    /// The source of the text.
    pub origin: Origin,
}

impl Configuration {
    /// Reads all sources. Never fails: what is wrong stands in `problems`, all of it at once.
    pub fn read(sources: &Sources) -> Self {
        let Said { layers, unknown, problems, warnings } = sources.read();
        let found = TABLE.iter().map(|setting| Found::new(setting, &layers)).collect();
        let mut this = Self { found, problems, warnings };
        this.problems.extend(this.found.iter().filter_map(Found::problem));
        this.warn_of_near_misses(unknown);
        this
    }

    /// Returns what was found for the setting of this name.
    ///
    /// # Panics
    ///
    /// If no row of the table has this name, which is a slip in this program.
    pub fn get(&self, name: &str) -> &Found {
        let found = self.found.iter().find(|found| found.setting.name == name);
        found.expect("the name stands in the table")
    }

    /// Checks what no setting can show alone, as far as it concerns this command.
    pub fn check_relations(&mut self, role: Role) {
        let [pending, block] = ["PENDING_MAX", "TRANSACTIONS_PER_BLOCK"].map(|name| &self.get(name).value);
        if let (&Some(Value::Whole(pending)), &Some(Value::Whole(block))) = (pending, block)
            && pending < block
        {
            self.problems.push(Problem::BlockNeverFull { pending, block });
        }
        if [Role::Sender, Role::Config].contains(&role)
            && let Some(Err(error)) = Mqtt::of(self).map(|mqtt| mqtt.check())
        {
            self.problems.push(error.into());
        }
        for (name, listener) in [("RECEIVER_LISTEN", Role::Receiver), ("SENDER_LISTEN", Role::Sender)] {
            if let Some(Value::Address(address)) = self.get(name).value
                && [listener, Role::Demo, Role::Config].contains(&role)
                && !address.ip().to_canonical().is_loopback()
                && self.get("API_TOKEN").text.is_none()
            {
                self.problems.push(Problem::PublicWithoutToken { name, address });
            }
        }
    }

    /// Warns of names that are nearly ours. It is no error, and names farther off are not mentioned: a `.env` and an
    /// environment are shared with other programs. Nor is one mentioned beside the setting it resembles: whoever
    /// has `API_TOKEN` and `APP_TOKEN` means both.
    fn warn_of_near_misses(&mut self, unknown: Vec<(Origin, String)>) {
        for (origin, key) in unknown {
            if let Some(meant) = Setting::meant_by(&key)
                && self.get(meant.name).origin == Origin::Default
            {
                self.warnings.push(Problem::NearMiss { key, origin, meant });
            }
        }
    }
}

impl Found {
    /// Takes the text of the first source that has one. An empty text counts as none where a setting may be unset,
    /// and never clears what a lower source sets: an `API_TOKEN=` left in a script must not open the door.
    fn new(setting: &'static Setting, layers: &[(Origin, Texts)]) -> Self {
        let mut said =
            layers.iter().filter_map(|(origin, texts)| Some((origin, texts.get(setting.name)?.trim())));
        let (origin, text) = match said.find(|(_, text)| !(text.is_empty() && setting.is_optional())) {
            Some((origin, text)) => (origin.clone(), Some(text.to_owned())),
            None => (Origin::Default, setting.default.text()),
        };
        let value = text.as_deref().filter(|text| !text.is_empty()).and_then(|text| setting.kind.parse(text));
        Self { setting, text, value, origin }
    }

    /// Returns the value as it may be shown.
    pub fn shown(&self) -> String {
        self.text.as_deref().map_or_else(|| "(not set)".to_owned(), |text| self.setting.kind.show(text))
    }

    /// Returns what is wrong with it, if anything is.
    pub fn problem(&self) -> Option<Problem> {
        let text = self.text.as_deref().filter(|_| self.value.is_none())?;
        let (setting, origin) = (self.setting, self.origin.clone());
        if text.is_empty() {
            return Some(Problem::Empty { setting, origin });
        }
        let got = if setting.is_secret() {
            format!("hidden here, {} characters long", text.chars().count())
        } else {
            format!("{:?}", setting.kind.show(text))
        };
        Some(Problem::BadValue { setting, origin, got })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::sources::tests::{Place, told};
    use super::*;

    fn read(place: &Place) -> Configuration {
        Configuration::read(&place.sources)
    }

    #[test]
    fn a_source_wins_over_those_below_it() {
        let found = |place: &Place| {
            let configuration = read(place);
            assert!(configuration.problems.is_empty() && configuration.warnings.is_empty());
            let found = configuration.get("DIFFICULTY");
            (found.text.clone().unwrap(), found.origin.clone())
        };
        let place = Place::new(&[]);
        assert_eq!(found(&place), ("2".to_owned(), Origin::Default));
        let toml = place.path("liotbchain.toml");
        fs::write(&toml, "difficulty = 3").unwrap();
        assert_eq!(found(&place), ("3".to_owned(), Origin::Toml(toml)));
        let dotenv = place.path(".env");
        fs::write(&dotenv, "DIFFICULTY=4").unwrap();
        assert_eq!(found(&place), ("4".to_owned(), Origin::Dotenv(dotenv)));
        let place = place.export("DIFFICULTY", "5");
        assert_eq!(found(&place), ("5".to_owned(), Origin::Environment));
        let place = place.flag("DIFFICULTY", "6");
        assert_eq!(found(&place), ("6".to_owned(), Origin::Flag));
    }

    #[test]
    fn takes_the_file_of_the_original_unchanged() {
        let url = "postgresql://pi:pa$$word@localhost:5432/liot";
        let text =
            format!("DATABASE_URL={url}\nTRANSACTIONS_PER_BLOCK=2\nDIFFICULTY=4\nNONCE_LIMIT=1000000\n");
        let configuration = read(&Place::new(&[(".env", &text)]));
        assert!(configuration.problems.is_empty() && configuration.warnings.is_empty());
        let names = ["DATABASE_URL", "TRANSACTIONS_PER_BLOCK", "DIFFICULTY", "NONCE_LIMIT"];
        let texts = names.map(|name| configuration.get(name).text.clone().unwrap());
        assert_eq!(texts, [url, "2", "4", "1000000"]);
        assert_eq!(configuration.get("DATABASE_URL").shown(), "postgresql://pi:***@localhost:5432/liot");
    }

    #[test]
    fn an_empty_value_is_no_value_where_a_setting_may_be_unset() {
        let text = "API_TOKEN=0123456789abcdef\nMINING_THREADS=\nALLOWED_HOSTS=''";
        let configuration = read(&Place::new(&[(".env", text)]).export("API_TOKEN", " "));
        assert!(configuration.problems.is_empty());
        assert!(matches!(configuration.get("API_TOKEN").origin, Origin::Dotenv(_)));
        assert_eq!(configuration.get("MINING_THREADS").origin, Origin::Default);
        assert_eq!(configuration.get("ALLOWED_HOSTS").text, None);
    }

    #[test]
    fn an_empty_value_is_an_error_elsewhere() {
        let problems = read(&Place::new(&[]).export("DIFFICULTY", "")).problems;
        let expected = "DIFFICULTY in the environment is empty, but must be a whole number from 0 to 16";
        assert_eq!(told(&problems), [expected]);
        assert_eq!(problems[0].hint(), "leave it out to have the default: 2");
    }

    #[test]
    fn names_the_setting_the_source_the_value_and_the_range() {
        let place = Place::new(&[("liotbchain.toml", "pending_max = 0")])
            .flag("DIFFICULTY", "17")
            .export("NONCE_LIMIT", "many")
            .export("LOG_FORMAT", "xml");
        let toml = place.path("liotbchain.toml");
        let expected = [
            "--difficulty is \"17\", but must be a whole number from 0 to 16".to_owned(),
            "NONCE_LIMIT in the environment is \"many\", but must be a whole number from 1 to 4294967296"
                .to_owned(),
            format!(
                "pending_max in {} is \"0\", but must be a whole number from 1 to 100000000",
                toml.display()
            ),
            "LOG_FORMAT in the environment is \"xml\", but must be one of text, json".to_owned(),
        ];
        assert_eq!(told(&read(&place).problems), expected);
    }

    #[test]
    fn never_repeats_a_secret_in_an_error() {
        let text = "receiver_token = [\"geheim\"]\nreceiver_url = \"http://pi:geheim@localhost\"";
        let place = Place::new(&[("liotbchain.toml", text)])
            .export("API_TOKEN", "geheim")
            .export("DATABASE_URL", "mysql://pi:geheim@localhost/liot");
        let problems = read(&place).problems;
        assert_eq!(problems.len(), 4);
        let words: String =
            problems.iter().map(|problem| format!("{problem} {}\n", problem.hint())).collect();
        assert!(!words.contains("geheim"), "{words}");
        for part in
            ["hidden here, 6 characters long", "openssl rand -hex 24", "\"mysql://pi:***@", "postgresql://"]
        {
            assert!(words.contains(part), "{part} in {words}");
        }

        let broken = Place::new(&[("liotbchain.toml", "difficulty = 2\napi_token = \"geheim")]);
        let told = told(&read(&broken).problems);
        assert!(told.len() == 1 && told[0].contains("line 2") && !told[0].contains("geheim"), "{told:?}");
    }

    #[test]
    fn warns_of_names_that_are_nearly_ours_and_mean_nothing_else() {
        let text = "DIFICULTY=3\nSECRET_KEY=x\nAPP_TOKEN=x\nAPI_TOKEN=0123456789abcdef\n";
        let place = Place::new(&[(".env", text)]).export("NONCE_LIMITS", "5").export("HOME", "/root");
        let configuration = read(&place);
        assert!(configuration.problems.is_empty());
        let expected = [
            "NONCE_LIMITS in the environment is no setting of liotbchain".to_owned(),
            format!("DIFICULTY in {} is no setting of liotbchain", place.path(".env").display()),
        ];
        assert_eq!(told(&configuration.warnings), expected);
        assert_eq!(configuration.warnings[1].hint(), "did you mean DIFFICULTY?");
    }
}
