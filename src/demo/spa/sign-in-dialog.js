import { byId, tell } from './dom.js'

const WORDS = {
  session_required: [
    'Your session has ended',
    'Sign in again, and what you sent is sent once more. Nothing you typed is lost.',
  ],
  reauthentication_required: [
    'One more step',
    'This needs a second factor. Confirm it, and what you sent is sent once more.',
  ],
}
const REASONS = {
  popup_blocked: 'The browser blocked the window. Allow popups for this page, and try again.',
  popup_closed: 'The window was closed before you had signed in.',
  access_denied: 'You cancelled at the identity provider.',
}

/** Asks the person to sign in, once however many calls were refused. Resolves with false for "not now". */
export function askToSignIn(cloakroom, { code }) {
  const dialog = byId('sign-in-dialog')
  const [title, text] = WORDS[code] ?? WORDS.session_required
  byId('dialog-title').textContent = title
  byId('dialog-text').textContent = text
  tell('dialog-result', '')
  byId('dialog-sign-in').onclick = () => signInByPopup(cloakroom, 'dialog-result')
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((resolve) => {
    const stopListening = cloakroom.on('signed-in', () => dialog.close('signed-in'))
    dialog.addEventListener('close', closed, { once: true })
    function closed() {
      stopListening()
      resolve(dialog.returnValue === 'signed-in')
    }
  })
}

/** Only in a click, or the browser blocks the window. */
export function signInByPopup(cloakroom, resultId) {
  tell(resultId, 'Go on in the window that opened.')
  return cloakroom
    .signIn({ mode: 'popup' })
    .then(() => tell(resultId, ''))
    .catch(({ reason, code }) =>
      tell(resultId, REASONS[reason] ?? `That did not work: ${reason ?? code}.`, 'failed'),
    )
}
