//! Arithmetic in Python's notation, as durations and `bantime.formula` use it. Computes with
//! numbers and nothing else: no name but those given means anything, and what it may take is
//! bounded by the length of the text.

/// The longest text that is read.
const MAX_TEXT: usize = 1024;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 48;

/// What a unit of a duration is worth, in seconds; `None`: it is no unit.
pub type Units = fn(&str) -> Option<f64>;

/// An expression that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: String,
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(f64),
    /// One of the names, by its place among them.
    Name(usize),
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Choice(Box<[Node; 3]>),
    Call(Function, Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unary {
    Minus,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Or,
    And,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    Unequal,
    Left,
    Right,
    Add,
    Subtract,
    Multiply,
    Divide,
    Floor,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Int,
    Float,
    Round,
    Abs,
    Pow,
    Exp,
    Log,
    Log2,
    Log10,
    Sqrt,
    Floor,
    Ceil,
}

/// Levels of precedence, the weakest first, with their operators.
const LEVELS: &[&[(&str, Binary)]] = &[
    &[("or", Binary::Or)],
    &[("and", Binary::And)],
    &[
        ("<=", Binary::LessEqual),
        (">=", Binary::GreaterEqual),
        ("==", Binary::Equal),
        ("!=", Binary::Unequal),
        ("<", Binary::Less),
        (">", Binary::Greater),
    ],
    &[("<<", Binary::Left), (">>", Binary::Right)],
    &[("+", Binary::Add), ("-", Binary::Subtract)],
    &[("*", Binary::Multiply), ("//", Binary::Floor), ("/", Binary::Divide), ("%", Binary::Modulo)],
];
/// The level whose operands may also stand side by side in a duration: `1h 30m`.
const SUM: usize = 4;
/// The level at which a unit multiplies.
const PRODUCT: usize = 5;

impl Expression {
    /// Reads `text`, in which `names` stand for numbers. With `units`, a number may carry one, and
    /// what stands side by side is added.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, names: &[&str], units: Option<Units>) -> Result<Expression, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("it is longer than {MAX_TEXT} characters"));
        }
        let tokens = tokens(text, units.is_some())?;
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, names, units };
        let root = parser.choice()?;
        match parser.peek() {
            None => Ok(Expression { text: text.to_owned(), root }),
            Some(token) => Err(format!("{token} does not belong there")),
        }
    }

    /// Returns its value, with a number for each name; not a number, or infinite, where it has
    /// none.
    #[must_use]
    pub fn value(&self, names: &[f64]) -> f64 {
        value(&self.root, names)
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Word(String),
    Sign(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Number(number) => write!(f, "'{number}'"),
            Token::Word(word) => write!(f, "'{word}'"),
            Token::Sign(sign) => write!(f, "'{sign}'"),
        }
    }
}

const SIGNS: [&str; 19] = [
    "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "(", ")",
    ",", "~",
];

fn tokens(text: &str, durations: bool) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_digit() || first == '.' {
            let length = number_length(rest, durations);
            let digits = rest.get(..length).unwrap_or_default();
            let number = digits.parse().map_err(|_| format!("'{digits}' is no number"))?;
            found.push(Token::Number(number));
            length
        } else if first.is_ascii_alphabetic() || first == '_' {
            // `1d12h` is two numbers: in a duration, a word is made of letters
            let inside = |c: char| {
                c.is_ascii_alphabetic()
                    || (!durations && (c.is_ascii_alphanumeric() || c == '.' || c == '_'))
            };
            let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            found.push(Token::Word(rest.get(..length).unwrap_or_default().to_owned()));
            length
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| format!("'{first}' does not belong there"))?;
            found.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(found)
}

fn number_length(text: &str, durations: bool) -> usize {
    let digits = |from: usize, also: &[char]| {
        let rest = text.get(from..).unwrap_or_default();
        let end = rest.find(|c: char| !c.is_ascii_digit() && !also.contains(&c));
        from + end.unwrap_or(rest.len())
    };
    let end = digits(0, &['.']);
    let tail = text.get(end..).unwrap_or_default();
    let Some(exponent) = tail.strip_prefix(['e', 'E']).filter(|_| !durations) else { return end };
    let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if !signed.starts_with(|c: char| c.is_ascii_digit()) {
        return end;
    }
    digits(text.len() - signed.len(), &[])
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
    names: &'t [&'t str],
    units: Option<Units>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Takes the sign or word, if it comes next.
    fn takes(&mut self, text: &str) -> bool {
        let found = match self.peek() {
            Some(Token::Sign(sign)) => *sign == text,
            Some(Token::Word(word)) => word == text,
            _ => false,
        };
        self.at += usize::from(found);
        found
    }

    /// `A if B else C`, or anything stronger.
    fn choice(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let node = self.level(0)?;
        let node = if self.takes("if") {
            let condition = self.level(0)?;
            if !self.takes("else") {
                return Err("an 'else' is missing".to_owned());
            }
            Node::Choice(Box::new([condition, node, self.choice()?]))
        } else {
            node
        };
        self.depth -= 1;
        Ok(node)
    }

    fn level(&mut self, level: usize) -> Result<Node, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        if level == 2 && self.takes("not") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err("it is nested too deeply".to_owned());
            }
            let node = self.level(level)?;
            self.depth -= 1;
            return Ok(Node::Unary(Unary::Not, Box::new(node)));
        }
        let mut left = self.level(level + 1)?;
        loop {
            let found = operators.iter().find(|(sign, _)| self.takes(sign));
            let operator = match found {
                Some((_, operator)) => *operator,
                None if level == PRODUCT && self.unit().is_some() => {
                    let unit = Node::Number(self.unit().unwrap_or(1.0));
                    self.at += 1;
                    left = Node::Binary(Binary::Multiply, Box::new(left), Box::new(unit));
                    continue;
                }
                None if level == SUM
                    && self.units.is_some()
                    && matches!(self.peek(), Some(Token::Number(_))) =>
                {
                    Binary::Add
                }
                None => return Ok(left),
            };
            let right = self.level(level + 1)?;
            left = Node::Binary(operator, Box::new(left), Box::new(right));
        }
    }

    /// Returns what the unit that comes next is worth.
    fn unit(&self) -> Option<f64> {
        let Some(Token::Word(word)) = self.peek() else { return None };
        self.units?(&word.to_ascii_lowercase())
    }

    fn unary(&mut self) -> Result<Node, String> {
        let minus = self.takes("-");
        if !minus && !self.takes("+") {
            return self.power();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let node = self.unary()?;
        self.depth -= 1;
        Ok(if minus { Node::Unary(Unary::Minus, Box::new(node)) } else { node })
    }

    fn power(&mut self) -> Result<Node, String> {
        let base = self.atom()?;
        if !self.takes("**") {
            return Ok(base);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        // to the right first, and a sign before the exponent belongs to it
        let exponent = self.unary()?;
        self.depth -= 1;
        Ok(Node::Binary(Binary::Power, Box::new(base), Box::new(exponent)))
    }

    fn atom(&mut self) -> Result<Node, String> {
        if self.takes("(") {
            let node = self.choice()?;
            return if self.takes(")") { Ok(node) } else { Err("a ')' is missing".to_owned()) };
        }
        let token = self.peek().cloned().ok_or("something is missing at its end")?;
        self.at += 1;
        match token {
            Token::Number(number) => Ok(Node::Number(number)),
            Token::Sign(sign) => Err(format!("'{sign}' does not belong there")),
            Token::Word(word) => match word.as_str() {
                "math.pi" => Ok(Node::Number(std::f64::consts::PI)),
                "math.e" => Ok(Node::Number(std::f64::consts::E)),
                "True" => Ok(Node::Number(1.0)),
                "False" => Ok(Node::Number(0.0)),
                name => match self.names.iter().position(|known| *known == name) {
                    Some(index) => Ok(Node::Name(index)),
                    None => self.call(name),
                },
            },
        }
    }

    fn call(&mut self, name: &str) -> Result<Node, String> {
        let (function, least, most) = match name {
            "min" => (Function::Min, 2, 16),
            "max" => (Function::Max, 2, 16),
            "int" => (Function::Int, 1, 1),
            "float" => (Function::Float, 1, 1),
            "round" => (Function::Round, 1, 1),
            "abs" | "math.fabs" => (Function::Abs, 1, 1),
            "pow" | "math.pow" => (Function::Pow, 2, 2),
            "math.exp" => (Function::Exp, 1, 1),
            "math.log" => (Function::Log, 1, 2),
            "math.log2" => (Function::Log2, 1, 1),
            "math.log10" => (Function::Log10, 1, 1),
            "math.sqrt" => (Function::Sqrt, 1, 1),
            "math.floor" => (Function::Floor, 1, 1),
            "math.ceil" => (Function::Ceil, 1, 1),
            _ => return Err(format!("'{name}' is not known")),
        };
        if !self.takes("(") {
            return Err(format!("'{name}' is a function: a '(' is missing"));
        }
        let mut arguments = vec![self.choice()?];
        while self.takes(",") {
            arguments.push(self.choice()?);
        }
        if !self.takes(")") {
            return Err("a ')' is missing".to_owned());
        }
        if arguments.len() < least || arguments.len() > most {
            return Err(format!("{name}() does not take {} numbers", arguments.len()));
        }
        Ok(Node::Call(function, arguments))
    }
}

fn value(node: &Node, names: &[f64]) -> f64 {
    match node {
        Node::Number(number) => *number,
        Node::Name(index) => names.get(*index).copied().unwrap_or(f64::NAN),
        Node::Unary(Unary::Minus, node) => -value(node, names),
        Node::Unary(Unary::Not, node) => truth(value(node, names) == 0.0),
        Node::Binary(operator, left, right) => {
            let left = value(left, names);
            match operator {
                // as in Python, the operand that decides
                Binary::And if left == 0.0 => return left,
                Binary::Or if left != 0.0 => return left,
                _ => {}
            }
            binary(*operator, left, value(right, names))
        }
        Node::Choice(parts) => {
            let [condition, then, otherwise] = &**parts;
            value(if value(condition, names) != 0.0 { then } else { otherwise }, names)
        }
        Node::Call(function, arguments) => {
            let arguments: Vec<f64> = arguments.iter().map(|node| value(node, names)).collect();
            call(*function, &arguments)
        }
    }
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(clippy::float_cmp, reason = "the operator's own comparison, as Python does it")]
fn binary(operator: Binary, left: f64, right: f64) -> f64 {
    match operator {
        Binary::Or | Binary::And => right,
        Binary::Less => truth(left < right),
        Binary::LessEqual => truth(left <= right),
        Binary::Greater => truth(left > right),
        Binary::GreaterEqual => truth(left >= right),
        Binary::Equal => truth(left == right),
        Binary::Unequal => truth(left != right),
        Binary::Left => left * right.trunc().exp2(),
        Binary::Right => (left / right.trunc().exp2()).floor(),
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide => left / right,
        Binary::Floor => (left / right).floor(),
        Binary::Modulo => left - right * (left / right).floor(),
        Binary::Power => left.powf(right),
    }
}

fn call(function: Function, arguments: &[f64]) -> f64 {
    let all = || arguments.iter().copied();
    let first = all().next().unwrap_or(f64::NAN);
    let second = all().nth(1);
    match function {
        Function::Min => all().reduce(f64::min).unwrap_or(f64::NAN),
        Function::Max => all().reduce(f64::max).unwrap_or(f64::NAN),
        Function::Int => first.trunc(),
        Function::Float => first,
        Function::Round => first.round_ties_even(),
        Function::Abs => first.abs(),
        Function::Pow => first.powf(second.unwrap_or(f64::NAN)),
        Function::Exp => first.exp(),
        Function::Log => second.map_or_else(|| first.ln(), |base| first.log(base)),
        Function::Log2 => first.log2(),
        Function::Log10 => first.log10(),
        Function::Sqrt => first.sqrt(),
        Function::Floor => first.floor(),
        Function::Ceil => first.ceil(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: f64) {
        let names = ["ban.Time", "ban.Count"];
        let expression = Expression::parse(text, &names, None).unwrap();
        let got = expression.value(&[600.0, 3.0]);
        assert!((got - expected).abs() < 1e-6, "{text}: {got}, not {expected}");
    }

    #[test]
    fn computes_as_python_does() {
        for (text, expected) in [
            ("1 + 2 * 3", 7.0),
            ("-2 ** 2", -4.0),
            ("2 ** -1", 0.5),
            ("2 ** 3 ** 2", 512.0),
            ("7 // 2 + 7 % 3", 4.0),
            ("-7 // 2", -4.0),
            ("-7 % 3", 2.0),
            ("1 << 2 + 1", 8.0),
            ("10 >> 1", 5.0),
            ("1e3 + .5", 1000.5),
            ("3 if 1 < 2 else 4", 3.0),
            ("1 if 0 else 2 if 0 else 3", 3.0),
            ("not 1 == 2 and 5", 5.0),
            ("0 or 4", 4.0),
            ("ban.Time * (1<<(ban.Count if ban.Count<20 else 20))", 4800.0),
            ("min(ban.Time, 5, 7) + max(1, 2)", 7.0),
            ("math.pow(ban.Count, 2)", 9.0),
            ("math.exp(float(ban.Count+1)*1)/math.exp(1*1)", 3.0_f64.exp()),
            ("round(2.5) + int(3.9) + abs(-1)", 6.0),
            ("math.log(8, 2) + math.sqrt(9)", 6.0),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn nothing_else_is_understood() {
        for text in [
            "",
            "1 +",
            "(1",
            "1)",
            "__import__('os')",
            "open(1)",
            "ban.Name",
            "1 2",
            "min(1)",
            "x if 1",
            "1..2",
            "~1",
            "[1]",
            "lambda: 1",
        ] {
            assert!(Expression::parse(text, &["ban.Time"], None).is_err(), "{text}");
        }
        for deep in ["(".repeat(500), "-".repeat(500), "not ".repeat(200), "2**".repeat(300)] {
            assert!(Expression::parse(&(deep + "1"), &[], None).is_err());
        }
        let long = "1+".repeat(1000) + "1";
        assert!(Expression::parse(&long, &[], None).unwrap_err().contains("longer"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9a-z .,+*/%()<>=!-]{0,60}") {
            if let Ok(expression) = Expression::parse(&text, &["a"], None) {
                let _ = expression.value(&[2.0]);
            }
        }
    }
}
