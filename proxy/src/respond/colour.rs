//! From one brand colour to all colours of a page, light and dark, each readable on its ground.
//!
//! Invariants:
//! - Text on the ground and on the panel has a contrast of at least 4.5, whatever
//!   the brand's colour; the button's edge stands out from both by 3.
//! - Bar and button have the brand's colour as it stands; text has it where it is readable, else the
//!   nearest darker (on dark pages: lighter) one that is.

use std::fmt;
use std::str::FromStr;

/// A colour as in `#1f6feb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Share of red.
    pub red: u8,
    /// Share of green.
    pub green: u8,
    /// Share of blue.
    pub blue: u8,
}

/// A text that names no colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColourFault;

impl fmt::Display for ColourFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("colour is not # and three or six hexadecimal digits")
    }
}

impl std::error::Error for ColourFault {}

impl FromStr for Colour {
    type Err = ColourFault;

    fn from_str(text: &str) -> Result<Self, ColourFault> {
        let digits = text.strip_prefix('#').ok_or(ColourFault)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ColourFault);
        }
        let number = u32::from_str_radix(digits, 16).map_err(|_| ColourFault)?;
        match digits.len() {
            3 => Ok(Self::new([number >> 8, number >> 4, number].map(|digit| (digit as u8 & 15) * 17))),
            6 => Ok(Self::new([number >> 16, number >> 8, number].map(|share| share as u8))),
            _ => Err(ColourFault),
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl Colour {
    const BLACK: Self = Self::new([0; 3]);
    const WHITE: Self = Self::new([255; 3]);

    const fn new([red, green, blue]: [u8; 3]) -> Self {
        Self { red, green, blue }
    }

    /// This colour with `percent` of `other` in it.
    fn mixed(self, other: Self, percent: u32) -> Self {
        let mix = |own: u8, new: u8| {
            ((u32::from(own) * (100 - percent) + u32::from(new) * percent + 50) / 100) as u8
        };
        Self::new([mix(self.red, other.red), mix(self.green, other.green), mix(self.blue, other.blue)])
    }

    /// Contrast between two colours, 1 to 21, as the accessibility guidelines (WCAG 2) define it.
    fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn luminance(self) -> f64 {
        let linear = |share: u8| {
            let share = f64::from(share) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// The nearest colour on the way to `extreme` that has the contrast on every ground.
    fn readable_on(self, grounds: &[Self], extreme: Self, contrast_min: f64) -> Self {
        (0..=100)
            .map(|percent| self.mixed(extreme, percent))
            .find(|colour| grounds.iter().all(|&ground| colour.contrast(ground) >= contrast_min))
            .unwrap_or(extreme)
    }

    /// Black or white, whichever is easier to read on this colour; always above 4.5.
    fn ink(self) -> Self {
        if self.contrast(Self::WHITE) >= self.contrast(Self::BLACK) { Self::WHITE } else { Self::BLACK }
    }
}

/// Least contrast of text.
const TEXT_CONTRAST_MIN: f64 = 4.5;
/// Least contrast of a control with what surrounds it.
const SHAPE_CONTRAST_MIN: f64 = 3.0;

/// The colours of a page in one mode.
struct Palette {
    brand: Colour,
    ground: Colour,
    panel: Colour,
    ink: Colour,
    soft: Colour,
    accent: Colour,
    edge: Colour,
    on_brand: Colour,
}

impl Palette {
    fn light(brand: Colour) -> Self {
        const INK: Colour = Colour::new([0x14, 0x17, 0x1c]);
        const SOFT: Colour = Colour::new([0x4b, 0x52, 0x5e]);
        let grounds = [Colour::WHITE.mixed(brand, 2), Colour::WHITE.mixed(brand, 8).mixed(INK, 3)];
        Self::new(brand, grounds, INK, SOFT, Colour::BLACK)
    }

    fn dark(brand: Colour) -> Self {
        const NIGHT: Colour = Colour::new([0x0d, 0x0f, 0x13]);
        const INK: Colour = Colour::new([0xf3, 0xf4, 0xf6]);
        const SOFT: Colour = Colour::new([0xb4, 0xba, 0xc5]);
        let grounds = [NIGHT.mixed(brand, 4), NIGHT.mixed(brand, 14).mixed(INK, 4)];
        Self::new(brand, grounds, INK, SOFT, Colour::WHITE)
    }

    /// `away` is where a colour moves to when it is too near to the ground or the panel.
    fn new(brand: Colour, grounds: [Colour; 2], ink: Colour, soft: Colour, away: Colour) -> Self {
        let [ground, panel] = grounds;
        let accent = brand.readable_on(&grounds, away, TEXT_CONTRAST_MIN);
        let edge = brand.readable_on(&grounds, away, SHAPE_CONTRAST_MIN);
        Self { brand, ground, panel, ink, soft, accent, edge, on_brand: brand.ink() }
    }
}

impl fmt::Display for Palette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brand, ground, panel, ink, soft, accent, edge, on_brand } = self;
        write!(f, ":root{{--brand:{brand};--ground:{ground};--panel:{panel};--ink:{ink};")?;
        write!(f, "--soft:{soft};--accent:{accent};--edge:{edge};--on-brand:{on_brand}}}")
    }
}

/// The style rules that give the page's colours their values in both modes.
pub(super) fn rules(brand: Colour) -> String {
    format!("{}@media(prefers-color-scheme:dark){{{}}}", Palette::light(brand), Palette::dark(brand))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = text.parse::<Colour>().ok().map(|colour| colour.to_string());
        assert_eq!(found.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn reads_three_and_six_digits_only() {
        check("#1f6feb", Some("#1f6feb"));
        check("#1F6FEB", Some("#1f6feb"));
        check("#0af", Some("#00aaff"));
        for text in ["", "#", "1f6feb", "#1f6fe", "#1f6feb00", "#+f6feb", "#gggggg", "red", "#äää"] {
            check(text, None);
        }
    }

    #[test]
    fn contrast_is_that_of_the_guidelines() {
        assert!((Colour::BLACK.contrast(Colour::WHITE) - 21.0).abs() < 0.01);
        let grey = Colour::new([0x76; 3]);
        assert!((grey.contrast(Colour::WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn every_brand_colour_gives_readable_pages() {
        let steps = || (0..=255u8).step_by(15);
        for (red, green, blue) in
            steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| (r, g, b))))
        {
            let brand = Colour { red, green, blue };
            for palette in [Palette::light(brand), Palette::dark(brand)] {
                for text in [palette.ink, palette.soft, palette.accent] {
                    assert!(
                        text.contrast(palette.ground) >= TEXT_CONTRAST_MIN,
                        "{brand}: {text} on the ground"
                    );
                    assert!(
                        text.contrast(palette.panel) >= TEXT_CONTRAST_MIN,
                        "{brand}: {text} on the panel"
                    );
                }
                assert!(palette.on_brand.contrast(brand) >= TEXT_CONTRAST_MIN, "{brand}: button");
                assert!(palette.edge.contrast(palette.ground) >= SHAPE_CONTRAST_MIN, "{brand}: edge");
                assert!(palette.edge.contrast(palette.panel) >= SHAPE_CONTRAST_MIN, "{brand}: edge");
            }
        }
    }

    #[test]
    fn a_readable_brand_colour_stays_as_it_is() {
        let brand: Colour = "#1d4ed8".parse().unwrap();
        let palette = Palette::light(brand);
        assert_eq!((palette.accent, palette.edge, palette.on_brand), (brand, brand, Colour::WHITE));
    }
}
