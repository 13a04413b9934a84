/** A form as submitting it would send it. */
export type FilledForm = {
  readonly action: string
  readonly method: 'GET' | 'POST'
  readonly fields: [name: string, value: string][]
}

/** What to type into a form's empty fields, and which button to press. */
export type FormValues = {
  readonly user?: string
  readonly password?: string
  /** Name, value or label of the button; the form's first one unless given. */
  readonly press?: string
}

/**
 * Fills in a page's first form and presses its first button. With a `user`, the first form that asks for a name is taken,
 * so that pages which offer people to click still let a test say who it is. Undefined when the page has no form.
 */
export function fillFirstForm(html: string, values: FormValues = {}): FilledForm | undefined {
  const forms = [...html.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)].map((match) => ({
    attributes: attributesOf(match[1] ?? ''),
    content: match[2] ?? '',
  }))
  const asksForName = (form: { content: string }) => inputsOf(form.content).some(isNameField)
  const form = (values.user === undefined ? undefined : forms.find(asksForName)) ?? forms[0]
  if (!form) return undefined
  const fields: [string, string][] = []
  for (const input of inputsOf(form.content)) {
    if (input.name === undefined || input.type === 'submit' || input.type === 'button') continue
    if (input.type === 'checkbox' && !('checked' in input)) continue
    fields.push([input.name, valueFor(input, values)])
  }
  const button = buttonToPress(html, form, values.press)
  if (button?.name !== undefined) fields.push([button.name, button.value ?? ''])
  return {
    action: form.attributes.action ?? '',
    method: form.attributes.method?.toUpperCase() === 'POST' ? 'POST' : 'GET',
    fields,
  }
}

/** Where `<meta http-equiv="refresh" content="0;url=…">` leads, or undefined. */
export function metaRefresh(html: string): string | undefined {
  for (const [, attributes = ''] of html.matchAll(/<meta\b([^>]*)>/gi)) {
    const { 'http-equiv': equiv, content } = attributesOf(attributes)
    if (equiv?.toLowerCase() !== 'refresh') continue
    const target = /^\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?(.*)$/i.exec(content ?? '')?.[1]
    if (target) return target.replace(/^(['"])(.*)\1$/, '$2')
  }
  return undefined
}

type Attributes = Record<string, string>

function attributesOf(text: string): Attributes {
  const found: Attributes = {}
  for (const match of text.matchAll(/([^\s=/]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+)))?/g))
    found[(match[1] ?? '').toLowerCase()] = decodeEntities(match[2] ?? match[3] ?? match[4] ?? '')
  return found
}

function inputsOf(html: string): Attributes[] {
  return [...html.matchAll(/<input\b([^>]*)>/gi)].map((match) => attributesOf(match[1] ?? ''))
}

function isNameField(input: Attributes): boolean {
  return input.name !== undefined && ['text', 'email', undefined].includes(input.type)
}

function valueFor(input: Attributes, values: FormValues): string {
  if (input.type === 'password') return values.password ?? 'correct horse'
  if (isNameField(input)) return values.user ?? (input.value || 'alice')
  return input.value ?? (input.type === 'checkbox' ? 'on' : '')
}

/** The form's own first submit button, or one elsewhere that names the form. With `press`, the one that is called so. */
function buttonToPress(
  html: string,
  form: { attributes: Attributes; content: string },
  press: string | undefined,
): Attributes | undefined {
  const { id } = form.attributes
  const elsewhere = buttonsOf(html).filter((button) => id !== undefined && button.form === id)
  const buttons = [...buttonsOf(form.content), ...elsewhere]
  if (press === undefined) return buttons[0]
  const found = buttons.find(({ name, value, label }) => [name, value, label].includes(press))
  if (!found) throw new Error(`the form has no button called ${press}`)
  return found
}

/** Submit buttons with their attributes; `label` is the text on them. */
function buttonsOf(html: string): Attributes[] {
  const tags = html.matchAll(/<button\b([^>]*)>([\s\S]*?)<\/button>|<input\b([^>]*)>/gi)
  return [...tags]
    .map(([tag, attributes, label, ofInput]) =>
      /^<button/i.test(tag)
        ? {
            ...attributesOf(attributes ?? ''),
            label: decodeEntities((label ?? '').replace(/<[^>]*>/g, '')).trim(),
          }
        : attributesOf(ofInput ?? ''),
    )
    .filter((button: Attributes) =>
      button.label === undefined ? button.type === 'submit' : button.type !== 'button',
    )
}

function decodeEntities(text: string): string {
  const named: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
  return text.replace(/&(#x[0-9a-f]+|#\d+|\w+);/gi, (whole, entity: string) => {
    if (entity.startsWith('#x')) return String.fromCodePoint(Number.parseInt(entity.slice(2), 16))
    if (entity.startsWith('#')) return String.fromCodePoint(Number(entity.slice(1)))
    return named[entity.toLowerCase()] ?? whole
  })
}
