import { createHash } from 'node:crypto'
import type { Response } from 'express'

/** The text of every page's `<style>` element. Its look is neutral, because the application has its own. */
export const PAGE_STYLE = `
:root { color-scheme: light dark; --ink: light-dark(#1d2129, #eceef2); --soft: light-dark(#5c6470, #a3abb8);
  --line: light-dark(#dfe3ea, #343a46); --paper: light-dark(#f4f5f8, #14171c); --card: light-dark(#fff, #1d2129) }
* { box-sizing: border-box }
body { display: grid; place-items: center; min-height: 100vh; margin: 0; padding: 1.5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif }
main { width: min(27rem, 100%); padding: clamp(1.4rem, 6vw, 2.25rem); border: 1px solid var(--line); border-radius: 1rem;
  background: var(--card); box-shadow: 0 1.5rem 3rem -2rem rgb(15 20 40 / 35%) }
main.brief { padding: 1rem; border: 0; background: none; box-shadow: none; text-align: center; animation: appear .3s .5s both }
h1 { margin: 0 0 .6rem; font-size: 1.5rem; line-height: 1.2; letter-spacing: -.02em }
p { margin: 0 0 .8rem }
.soft { color: var(--soft) }
.choices { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.6rem 0 }
.button { padding: .6rem 1.2rem; border: 1px solid var(--line); border-radius: .7rem; background: none; color: inherit;
  font: inherit; text-decoration: none }
.button:hover { border-color: var(--ink) }
.button.first { border-color: var(--ink); background: var(--ink); color: var(--card); font-weight: 600 }
.button.first:hover { background: var(--soft); border-color: var(--soft) }
a { color: inherit }
a:focus-visible { outline: 3px solid #6f9bff; outline-offset: 3px }
.facts { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .1rem .9rem; margin: 0; padding-top: 1.1rem;
  border-top: 1px solid var(--line); color: var(--soft); font-size: .82rem }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace }
@keyframes appear { from { opacity: 0 } }
`

const STYLE_SOURCE = sourceOf(PAGE_STYLE)
/** The only scripts of any page. */
const SUBMIT = 'document.forms[0].submit()'
const SUBMIT_SOURCE = sourceOf(SUBMIT)
// Under COOP a popup has no opener. The browser may drop the message of a window that closes at once.
const DONE = `const { channel, ...outcome } = document.querySelector('main').dataset
new BroadcastChannel(channel).postMessage(outcome)
window.setTimeout(close, 50)`
const DONE_SOURCE = sourceOf(DONE)

function sourceOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`
}

/** A page, and what it may do beyond the default policy. */
export type Page = {
  readonly html: string
  /** The origin to which it submits its form by itself. */
  readonly submitsTo?: string
  /** It tells the tabs of the application how the sign-in ended. */
  readonly tellsTabs?: true
}

/** Sends a page. Beyond the answer's Content-Security-Policy it may use the style above, named by its hash. */
export function sendPage(res: Response, { html, submitsTo, tellsTabs }: Page): void {
  let policy = `${res.getHeader('content-security-policy') ?? "default-src 'none'"};style-src ${STYLE_SOURCE}`
  if (submitsTo !== undefined) {
    // Chromium applies the list to the redirects that follow, too: a provider may pass the sign-out on, such as to the one
    // that it federates with, and the last redirect leads back here.
    const actions = `form-action ${submitsTo} https: 'self'`
    policy = `${policy.replace(/;?\s*form-action [^;]*/, '')};${actions};script-src ${SUBMIT_SOURCE}`
  }
  if (tellsTabs) policy = `${policy};script-src ${DONE_SOURCE}`
  res.setHeader('content-security-policy', policy)
  res.type('html').send(html)
}

/**
 * The page under SameSite=Strict for a sign-in that has finished already: its navigation begins on our own site, so it
 * brings the session cookie, which the redirect from the provider does not.
 */
export function arrivalPage(url: string): Page {
  return navigatingPage({ title: 'Signing in', text: 'Signing you in.', url, more: '' })
}

/**
 * The page after a sign-in. It navigates by itself, because a redirect that began at the provider brings no Strict cookie.
 * It stays in the tab when a download follows.
 */
export function landingPage(returnUrl: string): Page {
  const more = ' · <a href="/">Start page</a>'
  return navigatingPage({ title: 'Signed in', text: 'You are signed in.', url: returnUrl, more })
}

/** The page that goes on when the provider could not sign the user in without asking. That is no failure. */
export function onwardPage(returnUrl: string): Page {
  return navigatingPage({ title: 'One moment', text: 'One moment.', url: returnUrl, more: '' })
}

/** The page that a sign-out goes on from: while it is shown, nothing that the user has left is. */
export function signedOutPage(url: string): Page {
  return navigatingPage({ title: 'Signed out', text: 'You are signed out.', url, more: '' })
}

function navigatingPage(parts: { title: string; text: string; url: string; more: string }): Page {
  const url = escaped(parts.url)
  const html = page({
    title: parts.title,
    head: `<meta http-equiv="refresh" content="0;url=${url}">`,
    body: `<main class="brief"><p class="soft">${parts.text} <a href="${url}">Continue</a>${parts.more}</p></main>`,
  })
  return { html }
}

/** The page that signs out at the provider with a form that is too long for a URL (RP-Initiated Logout 1.0 §2). */
export function endSessionPage(form: {
  readonly action: string
  readonly fields: readonly (readonly [name: string, value: string])[]
}): Page {
  const inputs = form.fields.map(
    ([name, value]) => `<input type="hidden" name="${escaped(name)}" value="${escaped(value)}">`,
  )
  const html = page({
    title: 'Signing out',
    head: '',
    body: `<main class="brief"><form method="post" action="${escaped(form.action)}">${inputs.join('')}
<p class="soft">Signing you out. <button class="button">Continue</button></p></form></main>
<script>${SUBMIT}</script>`,
  })
  return { html, submitsTo: new URL(form.action).origin }
}

/** What a failure page says, and where it leads. */
export type FailedSignIn = {
  readonly title: string
  readonly code: string
  /** Finds the lines of this request in the log. */
  readonly requestId: string
  readonly retryUrl: string
  /** The text of the link to `retryUrl`. */
  readonly retryLabel?: string
}

/** The page for a failed sign-in: what happened, and a link to try again. It never retries by itself. */
export function failedSignInPage({ title, code, requestId, retryUrl, retryLabel }: FailedSignIn): Page {
  const html = page({
    title: 'Sign-in failed',
    head: '',
    body: `<main>
<h1>Sign-in failed</h1>
<p>${escaped(title)}.</p>
<p class="soft">Nothing has changed. If it fails again, tell support the two lines below.</p>
<p class="choices"><a class="button first" href="${escaped(retryUrl)}">${escaped(retryLabel ?? 'Try again')}</a>
<a class="button" href="/">Start page</a></p>
<dl class="facts"><dt>Error</dt><dd>${escaped(code)}</dd><dt>Request</dt><dd>${escaped(requestId)}</dd></dl>
</main>`,
  })
  return { html }
}

/** How the sign-in of a popup ended: without a code it went well. Names are those of `data-` attributes. */
export type PopupOutcome = {
  /** Names the popup to the tab that opened it. */
  readonly done: string
  readonly code?: string
  readonly reason?: string
  readonly 'request-id'?: string
}

/** The page on which the sign-in of a popup ends. It closes itself; where it may not, the text stays. */
export function donePage(basePath: string, outcome: PopupOutcome): Page {
  const isFailure = outcome.code !== undefined
  // The name in the helper, src/client/client.ts.
  const facts = Object.entries({ channel: `cloakroom:${basePath}`, ...outcome })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `data-${name}="${escaped(String(value))}"`)
  const text = isFailure ? 'The sign-in did not succeed.' : 'You are signed in.'
  const html = page({
    title: isFailure ? 'Sign-in failed' : 'Signed in',
    head: '',
    body: `<main class="brief" ${facts.join(' ')}><p class="soft">${text} You can close this window.</p></main>
<script>${DONE}</script>`,
  })
  return { html, tellsTabs: true }
}

function page({ title, head, body }: { title: string; head: string; body: string }): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title>${head}
<style>${PAGE_STYLE}</style></head>
<body>${body}</body>
</html>
`
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character)
}
