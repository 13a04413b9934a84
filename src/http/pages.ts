/** The page after sign-in under SameSite=Strict: it navigates by itself, because a redirect that began at the provider brings no Strict cookie. */
export function landingPage(returnUrl: string): string {
  const url = escaped(returnUrl)
  return page({
    title: 'Signed in',
    head: `<meta http-equiv="refresh" content="0;url=${url}">`,
    body: `<p>You are signed in. <a href="${url}">Continue</a></p>`,
  })
}

/** The page a person sees when a sign-in failed: what happened, and a link to try again. Never an automatic retry. */
export function failedSignInPage(options: {
  title: string
  code: string
  requestId: string
  retryUrl: string
}): string {
  return page({
    title: 'Sign-in failed',
    head: '',
    body: `<h1>Sign-in failed</h1><p>${escaped(options.title)}.</p>
<p><a href="${escaped(options.retryUrl)}">Try again</a></p>
<p><small>${escaped(options.code)} · request ${escaped(options.requestId)}</small></p>`,
  })
}

function page({ title, head, body }: { title: string; head: string; body: string }): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title}</title>${head}</head>
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
