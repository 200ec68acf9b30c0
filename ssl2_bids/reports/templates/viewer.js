// The viewer of each session: NiiVue, and volumes that come as a script. Pages are whole without.
(function () {
  const KEPT = 4;  // viewers that stay open: browsers drop the oldest of about 16 WebGL contexts
  const GAP = 4;  // mm between planes
  const PERIOD = 700;  // ms that a session is shown for where sessions alternate
  const PLANES = {  // NiiVue's number, axes along width and height, axis across
    axial: { type: 0, across: [0, 1], normal: 2 },
    coronal: { type: 1, across: [0, 2], normal: 1 },
    sagittal: { type: 2, across: [1, 2], normal: 0 },
  };
  const LOOK = {
    isRadiologicalConvention: false, sagittalNoseLeft: false, isSliceMM: false,
    backColor: [0, 0, 0, 1], fontColor: [0.56, 0.82, 1, 1], fontMinPx: 15, fontSizeScaling: 0.3,
    showAllOrientationMarkers: true, loadingText: '', logLevel: 'silent',
    crosshairColor: [0.3, 0.85, 1, 0.8], crosshairWidthUnit: 'mm', crosshairWidth: 0.5,
    crosshairGap: 12, dragMode: 9 /* windowing, by the right button */, dragAndDropEnabled: false,
  };
  const scripts = {}, open = [];

  const all = (within, query) => Array.from(within.querySelectorAll(query));
  const near = (a, b) => a.every((x, i) => Math.abs(x - b[i]) < 0.06);
  const written = (x) => x.toFixed(1).replace(/^-0\.0$/, '0.0').replace('-', '\u2212');
  const press = (buttons, pressed) => buttons.forEach((button, i) => {
    button.setAttribute('aria-pressed', pressed(button, i));
  });

  function hasWebGL2() {
    const context = document.createElement('canvas').getContext('webgl2');
    const lose = context && context.getExtension('WEBGL_lose_context');
    if (lose) lose.loseContext();
    return Boolean(context);
  }

  // A classic script, once: nothing else can be loaded by a page that was opened from a folder.
  function load(address) {
    scripts[address] = scripts[address] || new Promise((done) => {
      const script = document.createElement('script');
      script.onload = () => done(true);
      script.onerror = () => done(false);
      script.src = address;
      document.head.appendChild(script);
    });
    return scripts[address];
  }

  function createViewer(box) {
    const find = (query) => box.querySelector(query);
    const stage = find('.stage'), screen = find('.screen'), said = find('.said');
    const opacity = find('[data-opacity]'), slice = find('[data-slice]');
    const flicker = find('[data-flicker]');
    const rows = all(document, `#${box.dataset.table} tr[data-lesion]`);
    let nv = null, opening = null, contrasts = [], shown = 0, view = '', place = null, last = null;
    let clock = null, wired = false;

    function say(text) {
      said.textContent = text;
      said.hidden = !text;
      stage.hidden = Boolean(text);
    }

    // ---- Opening and closing

    function start() {
      opening = opening || build().then(
        () => {
          open.splice(0, open.length, ...open.filter((other) => other !== viewer), viewer);
          while (open.length > KEPT) open.shift().close();
          return true;
        },
        (error) => {
          say(`The interactive viewer did not start: ${error.message}. The figures stand alone.`);
          return false;
        },
      );
      return opening;
    }

    async function build() {
      const { program, volumes, name } = box.dataset;
      if (!contrasts.length) say('Loading the viewer \u2026');
      const loaded = await load(program) && await load(volumes);
      const content = (window.ssl2Volumes || {})[name];
      if (!loaded || !window.niivue || !content) {
        throw new Error(`its files, ${program} and ${volumes}, do not lie beside this page`);
      }
      say('');
      nv = new niivue.Niivue(Object.assign({ atlasOutline: opacity.value / 100 }, LOOK));
      nv.onLocationChange = located;
      await nv.attachToCanvas(find('canvas'));
      await addVolumes(content);
      if (!wired) wire();
      if (shown) show(shown);
      look(view || (screen.clientWidth < 600 ? 'axial' : 'three'));
      if (place || rows.length) go(place || centre(rows[0])); else move([0.5, 0.5, 0.5]);
    }

    async function addVolumes(content) {
      const decode = (base64, options) => niivue.NVImage.loadFromBase64(
        Object.assign({ base64, name: 'volume.nii' }, options),
      );
      const images = await Promise.all(content.images.map((image) => decode(
        image.nifti, { colormap: 'gray', cal_min: 0, cal_max: 255 },
      )));
      contrasts = images.map((image, i) => ({ name: content.images[i].name, values: image.img }));
      nv.addVolume(images[0]);
      if (!rows.length) return;
      const lesions = await decode(content.lesions, { opacity: opacity.value / 100 });
      const colours = { R: [0], G: [0], B: [0], I: [0], labels: [''] };
      rows.slice().sort((a, b) => number(a) - number(b)).forEach((row) => {
        const colour = parseInt(row.dataset.colour.slice(1), 16);
        colours.R.push(colour >> 16);
        colours.G.push((colour >> 8) & 255);
        colours.B.push(colour & 255);
        colours.I.push(number(row));
        colours.labels.push(row.dataset.about);
      });
      lesions.setColormapLabel(colours);
      nv.addVolume(lesions);
    }

    function close() {
      const canvas = nv.canvas, lose = nv.gl.getExtension('WEBGL_lose_context');
      nv.cleanup();
      canvas.replaceWith(canvas.cloneNode(false));
      if (lose) lose.loseContext();
      nv = opening = null;
    }

    // ---- What is seen

    // All contrasts lie on one grid: another one is other values in the same volume.
    function show(i) {
      shown = i;
      nv.volumes[0].img = contrasts[i].values;
      nv.updateGLVolume();
      press(all(box, '[data-images] button'), (button, j) => j === i);
    }

    // Sessions alternate at one crosshair, until one of them is chosen.
    function alternate(on) {
      window.clearInterval(clock);
      clock = on ? window.setInterval(() => {
        if (nv && nv.volumes.length && !document.hidden) show((shown + 1) % contrasts.length);
      }, PERIOD) : null;
      press([flicker], () => on);
    }

    function look(at) {
      view = at;
      fit();
      press(all(box, '[data-view]'), (button) => button.dataset.view === at);
      const axis = normal();
      slice.max = nv.volumes[0].dimsRAS[axis + 1] - 1;
      slice.value = voxel()[axis];
      find('[data-slice-name]').textContent = `${['Sagittal', 'Coronal', 'Axial'][axis]} slice`;
    }

    const plane = () => PLANES[view] || PLANES.axial;
    const normal = () => plane().normal;

    // The planes fill the width, but are never higher than most of the window.
    function fit() {
      const { dimsRAS, pixDimsRAS } = nv.volumes[0];
      const mm = [1, 2, 3].map((axis) => dimsRAS[axis] * pixDimsRAS[axis]);
      const seen = PLANES[view] ? [PLANES[view]] : Object.values(PLANES);
      const wide = seen.map((each) => mm[each.across[0]]);
      const high = seen.map((each) => mm[each.across[1]]);
      const total = wide.reduce((a, b) => a + b, GAP * (seen.length - 1)), top = Math.max(...high);
      const limit = Math.max(260, Math.min(0.62 * window.innerHeight, 620));
      const width = screen.clientWidth, height = Math.min(limit, (width * top) / total);
      const scale = Math.min(width / total, height / top);
      let left = (width - total * scale) / 2;
      screen.style.height = `${height}px`;
      nv.setCustomLayout(seen.map((each, i) => {
        const size = [(wide[i] * scale) / width, (high[i] * scale) / height];
        const corner = [left / width, (1 - size[1]) / 2];
        left += (wide[i] + GAP) * scale;
        return { sliceType: each.type, position: [...corner, ...size] };
      }));
    }

    // ---- Where one is

    const number = (row) => Number(row.dataset.lesion);
    const centre = (row) => [row.dataset.x, row.dataset.y, row.dataset.z].map(Number);
    const voxel = () => Array.from(nv.frac2vox(nv.scene.crosshairPos)).slice(0, 3);
    const go = (mm) => move(Array.from(nv.mm2frac(mm, 0, true)).slice(0, 3));

    function move(fraction) {
      nv.scene.crosshairPos = fraction.map((x) => Math.min(1, Math.max(0, x)));
      nv.createOnLocationChange();
      nv.drawScene();
    }

    function step(axis, by) {
      const dims = nv.volumes[0].dimsRAS, to = voxel();
      to[axis] = Math.min(dims[axis + 1] - 1, Math.max(0, to[axis] + by));
      move(to.map((x, i) => (x + 0.5) / dims[i + 1]));
    }

    // The lesion here, or the one whose centre this is: that of a crescent lies outside of it.
    function lesionAt(mm, label) {
      return rows.find((row) => (label ? number(row) === label : near(centre(row), mm)));
    }

    function located({ mm, vox, values }) {
      place = Array.from(mm).slice(0, 3);
      const label = values.length > 1 ? Math.round(values[1].value) : 0;
      const here = lesionAt(place, label), what = find('.what');
      const about = here ? (label ? '' : 'centre of ') + here.dataset.about : box.dataset.none;
      find('.where').textContent = `${place.map(written).join(' ')} mm`;
      what.textContent = about;
      what.style.setProperty('--dot', here ? here.dataset.colour : 'transparent');
      slice.value = vox[normal()];
      rows.forEach((row) => row.classList.toggle('here', row === here));
      last = here || last;
    }

    // The next lesion in the order that the table has now.
    function next(by) {
      const order = all(rows[0].parentNode, 'tr[data-lesion]');
      const row = order[(order.indexOf(last) + by + order.length) % order.length];
      go(centre(row));
      last = row;
      const table = row.closest('.scroll'), head = table.querySelector('thead').offsetHeight;
      const bottom = row.offsetTop + row.offsetHeight - table.clientHeight;
      table.scrollTop = Math.max(bottom, Math.min(table.scrollTop, row.offsetTop - head));
    }

    // ---- Hands

    function wire() {
      wired = true;
      const images = find('[data-images]');
      images.hidden = contrasts.length < 2;
      contrasts.forEach(({ name }, i) => {
        const button = document.createElement('button');
        button.type = 'button';
        button.textContent = name;
        button.addEventListener('click', () => {
          if (flicker) alternate(false);
          show(i);
        });
        images.appendChild(button);
      });
      press(all(images, 'button'), (button, i) => i === 0);
      if (flicker) flicker.addEventListener('click', () => alternate(!clock));
      find('[data-overlay]').hidden = find('[data-steps]').hidden = !rows.length;
      all(box, '[data-view]').forEach((button) => {
        button.addEventListener('click', () => look(button.dataset.view));
      });
      all(box, '[data-step]').forEach((button) => {
        button.addEventListener('click', () => next(Number(button.dataset.step)));
      });
      opacity.addEventListener('input', () => {
        nv.opts.atlasOutline = opacity.value / 100;  // else the rim is fainter than the inside
        nv.setOpacity(1, opacity.value / 100);
      });
      slice.addEventListener('input', () => step(normal(), slice.value - voxel()[normal()]));
      window.addEventListener('resize', () => { if (nv && nv.volumes.length) fit(); });
      rows.forEach(wireRow);
      wireScreen();
    }

    function wireRow(row) {
      const button = document.createElement('button');
      button.type = 'button';
      button.title = 'Show in the viewer';
      button.append(...row.cells[0].childNodes);
      row.cells[0].appendChild(button);
      row.classList.add('goes');
      row.addEventListener('click', (event) => {
        if (event.target.closest('a')) return;  // that leads to a figure
        start().then((good) => {
          if (!good) return;
          go(centre(row));
          last = row;
          stage.scrollIntoView({ block: 'nearest' });
        });
      });
    }

    function wireScreen() {
      const before = (kind, act) => screen.addEventListener(kind, act, true);
      const keep = (event) => event.stopPropagation();
      before('mousedown', (event) => event.target.focus({ preventScroll: true }));
      // The wheel scrolls the page until one has clicked here; so does a finger, always: it taps.
      before('wheel', (event) => { if (document.activeElement !== event.target) keep(event); });
      ['touchstart', 'touchmove', 'touchend', 'touchcancel', 'keyup'].forEach((kind) => {
        before(kind, keep);
      });
      before('dblclick', (event) => {
        keep(event);
        nv.volumes[0].cal_min = 0;
        nv.volumes[0].cal_max = 255;
        nv.updateGLVolume();
      });
      before('keydown', (event) => {
        const [right, up] = plane().across;
        const keys = {
          ArrowLeft: [right, -1], ArrowRight: [right, 1], ArrowDown: [up, -1], ArrowUp: [up, 1],
          PageDown: [normal(), -1], PageUp: [normal(), 1],
        };
        keep(event);
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        if (keys[event.key]) step(...keys[event.key]);
        else if (event.key === 'f' && flicker) alternate(!clock);
        else if ('np'.includes(event.key) && rows.length) next(event.key === 'n' ? 1 : -1);
        else return;
        event.preventDefault();
      });
    }

    const viewer = { start, close };
    return viewer;
  }

  const boxes = all(document, '.viewer[data-volumes]');
  if (boxes.length && !hasWebGL2()) {
    boxes.forEach((box) => {
      box.querySelector('.said').textContent = 'The interactive viewer needs WebGL 2, which this '
        + 'browser does not offer: the figures show the lesions.';
    });
    return;
  }
  boxes.forEach((box) => {
    const { start } = createViewer(box);
    new IntersectionObserver((seen) => {
      if (seen[seen.length - 1].isIntersecting) start();
    }, { rootMargin: '400px' }).observe(box);
  });
})();
