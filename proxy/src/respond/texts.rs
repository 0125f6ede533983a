//! Every word that a reader sees, in every language.
//!
//! Whether the link exists is never said while nobody can know it: what is unknown here may be known
//! to the database that is down. Hyphens in "e-mail" do not break (U+2011).

use super::language::Language;
use super::pages::Page;

/// What a page says: one sentence of what happened, and what to do.
pub(super) struct Text {
    pub(super) heading: &'static str,
    pub(super) advice: &'static str,
}

/// The words around it.
pub(super) struct Words {
    /// Over the time on the page of a planned maintenance.
    pub(super) back_planned: &'static str,
    /// Over the time when nobody knows the end.
    pub(super) back_unplanned: &'static str,
    /// The button that asks for the same address again.
    pub(super) again: &'static str,
    /// Beside a time that the script has turned into the reader's own.
    pub(super) own_time: &'static str,
    /// Before the number of the status.
    pub(super) status: &'static str,
}

pub(super) const fn words(language: Language) -> Words {
    match language {
        Language::En => Words {
            back_planned: "We expect to be back at",
            back_unplanned: "A good time to try again",
            again: "Try again",
            own_time: "your local time",
            status: "Status",
        },
        Language::De => Words {
            back_planned: "Voraussichtlich wieder da um",
            back_unplanned: "Neuer Versuch am besten ab",
            again: "Erneut versuchen",
            own_time: "Ihre Ortszeit",
            status: "Status",
        },
        Language::Fr => Words {
            back_planned: "Retour prévu à",
            back_unplanned: "Un bon moment pour réessayer",
            again: "Réessayer",
            own_time: "heure locale",
            status: "Statut",
        },
        Language::Es => Words {
            back_planned: "Hora prevista de regreso",
            back_unplanned: "Buen momento para volver a intentarlo",
            again: "Volver a intentarlo",
            own_time: "su hora local",
            status: "Estado",
        },
    }
}

pub(super) const fn text(page: Page, language: Language) -> Text {
    let [heading, advice] = match language {
        Language::En => english(page),
        Language::De => german(page),
        Language::Fr => french(page),
        Language::Es => spanish(page),
    };
    Text { heading, advice }
}

const fn english(page: Page) -> [&'static str; 2] {
    match page {
        Page::BadRequest => [
            "We couldn’t read this request",
            "The address may have been damaged on its way. Please open the link again directly from your email.",
        ],
        Page::Deleted => [
            "This link has been removed",
            "What it led to is no longer available here. If you have any questions, please contact the sender of the email.",
        ],
        Page::Disabled => [
            "This link has been switched off",
            "It is no longer in use. If you have any questions, please contact the sender of the email.",
        ],
        Page::Expired => [
            "This link has expired",
            "It was only valid for a limited time. If you have any questions, please contact the sender of the email.",
        ],
        Page::Maintenance(_) => [
            "Down for planned maintenance",
            "We are working on our systems. Please keep your email and open the link again when we are back.",
        ],
        Page::MethodNotAllowed => [
            "That isn’t possible here",
            "This address only opens links. Please open the link again directly from your email.",
        ],
        Page::Misdirected => [
            "There is nothing at this address",
            "This server doesn’t know the name in the address. Please check the address for typing mistakes.",
        ],
        Page::Outage(_) => [
            "We can’t open this link right now",
            "Something isn’t working on our side. Please keep your email and try again a little later.",
        ],
        Page::Refused(_) => [
            "We can’t take your request right now",
            "Our systems have reached their limit. Please keep your email and try again a little later.",
        ],
        Page::TooManyRequests { .. } => [
            "Too many requests",
            "Your network has opened many links that we don’t know in a short time. Please wait a moment, then try again.",
        ],
        Page::Unknown => [
            "We can’t find this link",
            "The address may be incomplete or mistyped. Please open the link again directly from your email.",
        ],
    }
}

const fn german(page: Page) -> [&'static str; 2] {
    match page {
        Page::BadRequest => [
            "Diese Anfrage konnten wir nicht lesen",
            "Die Adresse wurde möglicherweise unterwegs beschädigt. Bitte öffnen Sie den Link noch einmal direkt aus Ihrer E\u{2011}Mail.",
        ],
        Page::Deleted => [
            "Dieser Link wurde entfernt",
            "Sein Ziel ist hier nicht mehr verfügbar. Bei Fragen wenden Sie sich bitte an den Absender der E\u{2011}Mail.",
        ],
        Page::Disabled => [
            "Dieser Link wurde abgeschaltet",
            "Er wird nicht mehr verwendet. Bei Fragen wenden Sie sich bitte an den Absender der E\u{2011}Mail.",
        ],
        Page::Expired => [
            "Dieser Link ist abgelaufen",
            "Er war nur für begrenzte Zeit gültig. Bei Fragen wenden Sie sich bitte an den Absender der E\u{2011}Mail.",
        ],
        Page::Maintenance(_) => [
            "Geplante Wartungsarbeiten",
            "Wir arbeiten gerade an unseren Systemen. Bitte bewahren Sie Ihre E\u{2011}Mail auf und öffnen Sie den Link später noch einmal.",
        ],
        Page::MethodNotAllowed => [
            "Das ist hier nicht möglich",
            "Unter dieser Adresse lassen sich nur Links öffnen. Bitte öffnen Sie den Link noch einmal direkt aus Ihrer E\u{2011}Mail.",
        ],
        Page::Misdirected => [
            "Unter dieser Adresse gibt es nichts",
            "Dieser Server kennt den Namen in der Adresse nicht. Bitte prüfen Sie die Adresse auf Tippfehler.",
        ],
        Page::Outage(_) => [
            "Der Link lässt sich gerade nicht öffnen",
            "Bei uns ist eine Störung aufgetreten. Bitte bewahren Sie Ihre E\u{2011}Mail auf und versuchen Sie es etwas später noch einmal.",
        ],
        Page::Refused(_) => [
            "Wir können Ihre Anfrage gerade nicht annehmen",
            "Unsere Systeme sind an ihrer Grenze. Bitte bewahren Sie Ihre E\u{2011}Mail auf und versuchen Sie es etwas später noch einmal.",
        ],
        Page::TooManyRequests { .. } => [
            "Zu viele Anfragen",
            "Aus Ihrem Netz wurden in kurzer Zeit viele Links geöffnet, die wir nicht kennen. Bitte warten Sie einen Moment und versuchen Sie es dann erneut.",
        ],
        Page::Unknown => [
            "Wir finden diesen Link nicht",
            "Die Adresse ist möglicherweise unvollständig oder falsch geschrieben. Bitte öffnen Sie den Link noch einmal direkt aus Ihrer E\u{2011}Mail.",
        ],
    }
}

const fn french(page: Page) -> [&'static str; 2] {
    match page {
        Page::BadRequest => [
            "Nous n’avons pas pu lire cette demande",
            "L’adresse a peut-être été altérée en chemin. Veuillez rouvrir le lien directement depuis votre e\u{2011}mail.",
        ],
        Page::Deleted => [
            "Ce lien a été supprimé",
            "Le contenu auquel il menait n’est plus disponible ici. Pour toute question, veuillez contacter l’expéditeur de l’e\u{2011}mail.",
        ],
        Page::Disabled => [
            "Ce lien a été désactivé",
            "Il n’est plus utilisé. Pour toute question, veuillez contacter l’expéditeur de l’e\u{2011}mail.",
        ],
        Page::Expired => [
            "Ce lien a expiré",
            "Il n’était valable que pour une durée limitée. Pour toute question, veuillez contacter l’expéditeur de l’e\u{2011}mail.",
        ],
        Page::Maintenance(_) => [
            "Maintenance planifiée en cours",
            "Nous intervenons actuellement sur nos systèmes. Veuillez conserver votre e\u{2011}mail et rouvrir le lien à notre retour.",
        ],
        Page::MethodNotAllowed => [
            "Cette action n’est pas possible ici",
            "Cette adresse sert uniquement à ouvrir des liens. Veuillez rouvrir le lien directement depuis votre e\u{2011}mail.",
        ],
        Page::Misdirected => [
            "Il n’y a rien à cette adresse",
            "Ce serveur ne connaît pas le nom indiqué dans l’adresse. Veuillez vérifier qu’elle ne contient pas de faute de frappe.",
        ],
        Page::Outage(_) => [
            "Ce lien est momentanément inaccessible",
            "Un problème est survenu de notre côté. Veuillez conserver votre e\u{2011}mail et réessayer un peu plus tard.",
        ],
        Page::Refused(_) => [
            "Service momentanément saturé",
            "Nos systèmes ont atteint leur limite. Veuillez conserver votre e\u{2011}mail et réessayer un peu plus tard.",
        ],
        Page::TooManyRequests { .. } => [
            "Trop de demandes",
            "De nombreux liens que nous ne connaissons pas ont été ouverts depuis votre réseau en peu de temps. Veuillez patienter un instant, puis réessayer.",
        ],
        Page::Unknown => [
            "Nous ne trouvons pas ce lien",
            "L’adresse est peut-être incomplète ou mal saisie. Veuillez rouvrir le lien directement depuis votre e\u{2011}mail.",
        ],
    }
}

const fn spanish(page: Page) -> [&'static str; 2] {
    match page {
        Page::BadRequest => [
            "No hemos podido leer esta solicitud",
            "Es posible que la dirección se haya dañado por el camino. Vuelva a abrir el enlace directamente desde su correo.",
        ],
        Page::Deleted => [
            "Este enlace se ha eliminado",
            "El contenido al que llevaba ya no está disponible aquí. Si tiene alguna pregunta, póngase en contacto con el remitente del correo.",
        ],
        Page::Disabled => [
            "Este enlace se ha desactivado",
            "Ya no está en uso. Si tiene alguna pregunta, póngase en contacto con el remitente del correo.",
        ],
        Page::Expired => [
            "Este enlace ha caducado",
            "Solo era válido durante un tiempo limitado. Si tiene alguna pregunta, póngase en contacto con el remitente del correo.",
        ],
        Page::Maintenance(_) => [
            "Mantenimiento programado en curso",
            "Estamos trabajando en nuestros sistemas. Conserve su correo y vuelva a abrir el enlace cuando estemos de vuelta.",
        ],
        Page::MethodNotAllowed => [
            "Eso no es posible aquí",
            "Esta dirección solo sirve para abrir enlaces. Vuelva a abrir el enlace directamente desde su correo.",
        ],
        Page::Misdirected => [
            "No hay nada en esta dirección",
            "Este servidor no conoce el nombre que figura en la dirección. Compruebe que esté bien escrita.",
        ],
        Page::Outage(_) => [
            "Ahora mismo no podemos abrir este enlace",
            "Algo no funciona por nuestra parte. Conserve su correo y vuelva a intentarlo un poco más tarde.",
        ],
        Page::Refused(_) => [
            "Ahora mismo no podemos atender su solicitud",
            "Nuestros sistemas han llegado a su límite. Conserve su correo y vuelva a intentarlo un poco más tarde.",
        ],
        Page::TooManyRequests { .. } => [
            "Demasiadas solicitudes",
            "Desde su red se han abierto en poco tiempo muchos enlaces que no conocemos. Espere un momento y vuelva a intentarlo.",
        ],
        Page::Unknown => [
            "No encontramos este enlace",
            "Es posible que la dirección esté incompleta o mal escrita. Vuelva a abrir el enlace directamente desde su correo.",
        ],
    }
}
