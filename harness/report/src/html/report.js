// Filters the cases, and keeps what is filtered in the fragment of the address, so that a filtered
// page can be handed on. The page is whole without this.
'use strict';
(() => {
  const form = document.getElementById('filters');
  const shown = document.getElementById('shown');
  const cases = [...document.querySelectorAll('.case')];
  const texts = new Map();

  const textOf = (it) => {
    if (!texts.has(it)) texts.set(it, it.textContent.toLowerCase());
    return texts.get(it);
  };

  const isWanted = (it, wanted) => {
    const { verdict, layer } = it.dataset;
    if (wanted.layer && layer !== wanted.layer) return false;
    if (wanted.verdict === 'failing' && (verdict === 'pass' || verdict === 'ignored')) return false;
    if (wanted.verdict && wanted.verdict !== 'failing' && verdict !== wanted.verdict) return false;
    return wanted.words.every((word) => textOf(it).includes(word));
  };

  const wanted = () => ({
    verdict: form.elements.verdict.value,
    layer: form.elements.layer.value,
    words: form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean),
  });

  const apply = () => {
    const now = wanted();
    let count = 0;
    for (const it of cases) {
      const keep = isWanted(it, now);
      it.hidden = !keep;
      if (keep) count += 1;
    }
    shown.textContent = `${count} of ${cases.length} cases`;
  };

  // Opens whatever holds a place, and goes there. The filters stay in the address.
  const go = (target) => {
    const hidden = target.closest('.case[hidden]');
    if (hidden) hidden.hidden = false;
    for (let it = target; it; it = it.parentElement) if (it.tagName === 'DETAILS') it.open = true;
    const entry = target.closest('.k, .case') || target;
    entry.scrollIntoView({ block: 'start' });
    const heading = entry.querySelector('summary') || entry;
    if (heading === entry) heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  };

  // A fragment with `=` is a filter, every other one is a place on the page.
  const read = () => {
    const fragment = location.hash.slice(1);
    if (fragment.includes('=')) {
      const given = new URLSearchParams(fragment);
      for (const name of ['q', 'verdict', 'layer']) form.elements[name].value = given.get(name) || '';
      for (const name of ['verdict', 'layer']) {
        // What no option has shows everything, not nothing.
        if (form.elements[name].selectedIndex < 0) form.elements[name].value = '';
      }
    }
    apply();
    const target = /^[ckpw]\d+(r\d+)?$/.test(fragment) && document.getElementById(fragment);
    if (target) go(target);
  };

  const write = () => {
    const given = new URLSearchParams();
    for (const name of ['q', 'verdict', 'layer']) {
      const value = form.elements[name].value;
      if (value) given.set(name, value);
    }
    try {
      history.replaceState(null, '', `#${given}`);
    } catch {
      // A page in a frame may not be allowed to; its filters work all the same.
    }
  };

  const setAll = (open) => {
    for (const it of document.querySelectorAll('details.case:not([hidden])')) it.open = open;
  };

  form.hidden = false;
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', () => { apply(); write(); });
  form.addEventListener('reset', () => setTimeout(() => { apply(); write(); }));
  document.getElementById('unfold').addEventListener('click', () => setAll(true));
  document.getElementById('fold').addEventListener('click', () => setAll(false));
  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[href^="#c"], a[href^="#k"], a[href^="#p"], a[href^="#w"]');
    const target = link && document.getElementById(link.getAttribute('href').slice(1));
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(target);
  });
  window.addEventListener('hashchange', read);
  // On paper nothing can be opened.
  let closed = [];
  window.addEventListener('beforeprint', () => {
    closed = [...document.querySelectorAll('details:not([open])')];
    for (const it of closed) it.open = true;
  });
  window.addEventListener('afterprint', () => { for (const it of closed) it.open = false; });
  read();
})();
