//! How firmly the program sits on the interfaces: for good, as long as this process lives, or not
//! at all. Changes nothing but the attachments: the maps keep their bans.

use super::{attach::attach, error::Error, interface, link::Link, xdp::Xdp};

/// How firmly the program sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Pinned: it stays without us.
    #[default]
    Pinned,
    /// By our descriptors: the kernel takes it off when this process ends, however it ends.
    Held,
    /// It sits nowhere.
    Off,
}

impl Xdp {
    /// Makes it sit as firmly as `wanted`. The interfaces that it sits on, or sat on.
    ///
    /// # Errors
    /// If the kernel refuses; it may be called again.
    pub fn hold(&mut self, wanted: Hold) -> Result<Vec<String>, Error> {
        self.must_be_wanted()?;
        match wanted {
            Hold::Off => self.take_off()?,
            Hold::Pinned => {
                self.put_on()?;
                self.pin()?;
            }
            Hold::Held => {
                self.put_on()?;
                self.unpin()?;
            }
        }
        self.options.hold = wanted;
        Ok(self.attached.iter().map(|on| on.name.clone()).collect())
    }

    /// Leaves the attachments to our descriptors alone.
    pub(super) fn unpin(&self) -> Result<(), Error> {
        for name in self.pins.linked()? {
            let pin = self.pins.link(&name);
            std::fs::remove_file(&pin).map_err(|e| Error::call("unpin", name, e))?;
        }
        Ok(())
    }

    fn pin(&self) -> Result<(), Error> {
        for (name, link) in &self.links {
            let pin = self.pins.link(name);
            let failed = |e| Error::call("pin the link of", name.clone(), e);
            // there already, if it was pinned all along
            if Link::open(&pin).map_err(failed)?.is_none() {
                link.pin(&pin).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn take_off(&mut self) -> Result<(), Error> {
        self.unpin()?;
        while let Some((name, link)) = self.links.last() {
            link.take_off().map_err(|e| Error::call("detach", name.clone(), e))?;
            self.links.pop();
        }
        self.attached.iter_mut().for_each(|on| on.place = None);
        Ok(())
    }

    /// Attaches, pinned, where it sits nowhere.
    fn put_on(&mut self) -> Result<(), Error> {
        let all = interface::list()?;
        for (on, program) in self.attached.iter_mut().zip(self.programs.iter_mut().skip(1)) {
            if on.place.is_some() {
                continue;
            }
            let Some(interface) = all.iter().find(|interface| interface.name == on.name) else {
                // hears of it when it comes back
                on.ifindex = 0;
                on.warnings = vec![format!("{} is gone", on.name)];
                continue;
            };
            let done = attach(&self.options, &self.pins, interface, program)?;
            let warnings = std::mem::take(&mut on.warnings);
            on.put(interface, done.place, done.warning);
            on.warnings.extend(warnings);
            self.links.push((on.name.clone(), done.undo.into_link()));
        }
        Ok(())
    }
}
