//! The lifetime of the attachments: pinned, tied to this process, or detached. Changes nothing but
//! the attachments: the maps keep their bans.

use super::{
    attach::attach, attachment::Attachment, error::Error, interface, link::Link,
    plane::DataPlane as _, xdp::Xdp,
};

/// How long the program stays attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// It stays without us.
    #[default]
    Pinned,
    /// By our descriptors: the kernel takes it off when this process ends, however it ends.
    Process,
    /// It is attached nowhere.
    Detached,
}

impl Xdp {
    /// Makes the attachments live as long as `wanted`. Returns the interfaces that the program is
    /// attached to, or was.
    ///
    /// # Errors
    /// If the kernel refuses; it may be called again.
    pub fn set_lifetime(&mut self, wanted: Lifetime) -> Result<Vec<String>, Error> {
        self.must_be_wanted()?;
        match wanted {
            Lifetime::Detached => self.take_off()?,
            Lifetime::Pinned => {
                self.put_on()?;
                self.pin()?;
            }
            Lifetime::Process => {
                self.put_on()?;
                self.unpin()?;
            }
        }
        self.options.lifetime = wanted;
        Ok(self.interfaces().iter().map(|on| on.name.clone()).collect())
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
        for Attachment { interface: on, link, .. } in &self.attachments {
            let Some(link) = link else { continue };
            let name = &on.name;
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
        for Attachment { interface: on, link, .. } in self.attachments.iter_mut().rev() {
            if let Some(link) = link {
                link.take_off().map_err(|e| Error::call("detach", on.name.clone(), e))?;
            }
            *link = None;
        }
        self.attachments.iter_mut().for_each(|attachment| attachment.interface.mode = None);
        Ok(())
    }

    /// Attaches, pinned, where it sits nowhere.
    fn put_on(&mut self) -> Result<(), Error> {
        let all = interface::list()?;
        for Attachment { interface: on, program, link } in &mut self.attachments {
            if on.mode.is_some() {
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
            on.put(interface, done.mode, done.warning);
            on.warnings.extend(warnings);
            *link = Some(done.undo.into_link());
        }
        Ok(())
    }
}
