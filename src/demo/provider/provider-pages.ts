import type { Person } from './identity-provider-options.ts'

/** What the sign-in page shows. */
export type SignInView = {
  readonly persons: readonly Person[]
  /** Who asks, in words for the person. */
  readonly clientName: string
  /** Fills the name field (OpenID Connect Core §3.1.2.1, `login_hint`). */
  readonly loginHint?: string
  /** Comes back with the form, so that no page of another origin can have made it. */
  readonly formToken?: string
}

/** Persons to click, or a name to type; posts to its own address. */
export function signInPage(view: SignInView): string {
  const token = tokenInput(view.formToken)
  return page(
    'Sign in',
    `<h1>Sign in</h1>
    <p class="lead">to continue to <strong>${escapeHtml(view.clientName)}</strong></p>
    <form method="post" class="persons">${token}${view.persons.map(personButton).join('')}</form>
    <p class="or"><span>or be somebody else</span></p>
    <form method="post" class="somebody">${token}
      <label for="name">Name</label>
      <div class="row">
        <input id="name" name="name" required maxlength="60" autocomplete="off" placeholder="Your name" value="${escapeHtml(view.loginHint ?? '')}">
        <button class="primary">Continue</button>
      </div>
    </form>
    <form method="post">${token}<button name="cancel" value="yes" class="quiet">Cancel</button></form>`,
  )
}

/** Stands for the question on the person's phone, the second factor of a sign-in. */
export function secondFactorPage(person: Person, formToken?: string): string {
  const token = tokenInput(formToken)
  const who = `${token}<input type="hidden" name="person" value="${escapeHtml(person.sub)}">`
  return page(
    'Second factor',
    `<h1>Is it you, ${escapeHtml(person.name)}?</h1>
    <p class="lead">The application asks for a second factor. Your phone would ask you now; here this button does.</p>
    <form method="post">${who}<button name="approved" value="yes" class="primary wide">Yes, it is me</button></form>
    <form method="post">${token}<button name="cancel" value="yes" class="quiet">Cancel</button></form>`,
  )
}

/** Asks the person to agree to what the application wants (OpenID Connect Core §3.1.2.4). */
export function consentPage(
  person: Person,
  asked: { readonly clientName: string; readonly scopes: readonly string[]; readonly formToken: string },
): string {
  const token = tokenInput(asked.formToken)
  const scopes = asked.scopes.map((scope) => `<li>${escapeHtml(scope)}</li>`).join('')
  return page(
    'Consent',
    `<h1>Do you agree, ${escapeHtml(person.name)}?</h1>
    <p class="lead"><strong>${escapeHtml(asked.clientName)}</strong> asks for:</p>
    <ul>${scopes}</ul>
    <form method="post">${token}<input type="hidden" name="person" value="${escapeHtml(person.sub)}">
      <button name="agreed" value="yes" class="primary wide">Yes, I agree</button></form>
    <form method="post">${token}<button name="cancel" value="yes" class="quiet">Cancel</button></form>`,
  )
}

function tokenInput(formToken: string | undefined): string {
  return formToken === undefined ? '' : `<input type="hidden" name="form" value="${escapeHtml(formToken)}">`
}

/** Submits the library's logout form by itself; the button is for browsers without scripts. */
export function signingOutPage(form: string): string {
  return page(
    'Signing out',
    `<h1>Signing you out…</h1>
    ${withLogoutConfirmed(form)}
    <noscript><button class="primary" form="op.logoutForm">Continue</button></noscript>
    <script type="module" src="/assets/submit.js"></script>`,
  )
}

/** Asks before it signs out, because nobody proved that an application of this person asked for it. */
export function signOutPage(form: string): string {
  return page(
    'Sign out',
    `<h1>Sign out?</h1>
    <p class="lead">This ends your session at the identity provider.</p>
    ${withLogoutConfirmed(form)}
    <button class="primary" form="op.logoutForm">Sign out</button>`,
  )
}

/** Shown when no application asked to have the person back. */
export function signedOutPage(): string {
  return page('Signed out', '<h1>You are signed out</h1><p class="lead">You can close this page.</p>')
}

/** A request the provider refuses, in one sentence. */
export function errorPage(message: string): string {
  return page(
    'Not possible',
    `<h1>That did not work</h1><p class="lead">${escapeHtml(message)}</p>
    <p class="lead">Go back to the application and start again.</p>`,
  )
}

function personButton(person: Person, index: number): string {
  const initials = person.name
    .split(/\s+/)
    .map((word) => word[0])
    .join('')
    .slice(0, 2)
  return `<button class="person" name="person" value="${escapeHtml(person.sub)}">
      <span class="avatar tint-${index % 4}" aria-hidden="true">${escapeHtml(initials)}</span>
      <span class="who"><strong>${escapeHtml(person.name)}</strong><small>${escapeHtml(person.email ?? person.sub)}</small></span>
      <span class="go" aria-hidden="true">→</span>
    </button>`
}

function withLogoutConfirmed(form: string): string {
  return form.replace('</form>', '<input type="hidden" name="logout" value="yes"></form>')
}

function page(title: string, content: string): string {
  return `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>${title} · Example ID</title>
  <link rel="icon" href="/assets/mark.svg">
  <link rel="stylesheet" href="/assets/provider.css">
</head>
<body>
  <main>
    <p class="brand"><span class="mark" aria-hidden="true"></span>Example ID</p>
    ${content}
  </main>
  <footer class="foot">An identity provider for this demo, running on your machine.<br>No passwords, no real people; nothing leaves it.</footer>
</body>
</html>`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
